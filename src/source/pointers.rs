//! The body locations of a recipe's locators: JSON pointers (RFC 6901), form fields, and JSON pointers inside a form field. The
//! locations are merged into trees, so one pass over a body finds all of them. This module reads no bodies.

/// All body locations of a recipe. Each distinct location has a slot.
#[derive(Debug, Default)]
pub(crate) struct Pointers {
    /// The root of the pointers into a JSON body.
    pub(crate) root: Node,
    /// The fields to find in a form.
    pub(crate) form: Vec<FormField>,
    /// The number of slots.
    pub(crate) slots: usize,
}

/// One field of a form.
#[derive(Debug)]
pub(crate) struct FormField {
    /// The decoded name.
    pub(crate) name: String,
    /// The slot of the field's value.
    pub(crate) slot: Option<usize>,
    /// The root of the pointers into a value that is JSON.
    pub(crate) root: Node,
}

/// One location in a JSON document, on the path of at least one pointer.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The slot of the pointer that ends at this location.
    pub(crate) slot: Option<usize>,
    /// The next steps of the pointers through this location: member names, or array indexes in decimal.
    pub(crate) children: Vec<(String, Node)>,
}

impl Pointers {
    /// Returns the slot of a pointer such as `/data/object/id`, or `None` if the text is empty, is not a pointer, or has more
    /// than [`MAX_DEPTH`] steps.
    pub(crate) fn slot(&mut self, pointer: &str) -> Option<usize> {
        let steps = steps(pointer)?;
        let node = steps.into_iter().fold(&mut self.root, Node::child);
        Some(slot_of(&mut node.slot, &mut self.slots))
    }

    /// Returns the slot of the form field `name`, or `None` if the name is empty.
    pub(crate) fn field_slot(&mut self, name: &str) -> Option<usize> {
        let at = self.field(name)?;
        Some(slot_of(&mut self.form[at].slot, &mut self.slots))
    }

    /// Returns the slot of a pointer into the JSON of a form field, written `NAME/POINTER`, or `None` if the text is malformed.
    pub(crate) fn field_json_slot(&mut self, text: &str) -> Option<usize> {
        let (name, pointer) = text.split_at(text.find('/')?);
        let steps = steps(pointer)?;
        let at = self.field(name)?;
        let node = steps.into_iter().fold(&mut self.form[at].root, Node::child);
        Some(slot_of(&mut node.slot, &mut self.slots))
    }

    fn field(&mut self, name: &str) -> Option<usize> {
        let known = self.form.iter().position(|field| field.name == name);
        let new = || {
            self.form.push(FormField { name: name.to_owned(), slot: None, root: Node::default() });
            self.form.len() - 1
        };
        (!name.is_empty()).then(|| known.unwrap_or_else(new))
    }

    /// True if no locator needs the body.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots == 0
    }
}

impl Node {
    /// Returns the index of the child called `name`.
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        self.children.iter().position(|(child, _)| child.as_bytes() == name)
    }

    /// Returns the index of the child for element `index` of an array. `01` and `+1` are member names, not indexes.
    pub(crate) fn find_index(&self, index: usize) -> Option<usize> {
        let is_index = |name: &str| !(name.starts_with('+') || (name.len() > 1 && name.starts_with('0')));
        self.children.iter().position(|(name, _)| is_index(name) && name.parse() == Ok(index))
    }

    fn child(&mut self, name: String) -> &mut Node {
        let at = self.find(name.as_bytes()).unwrap_or_else(|| {
            self.children.push((name, Node::default()));
            self.children.len() - 1
        });
        &mut self.children[at].1
    }
}

/// Returns the slot of a location. Assigns the next slot if the location has none.
fn slot_of(slot: &mut Option<usize>, slots: &mut usize) -> usize {
    *slot.get_or_insert_with(|| {
        *slots += 1;
        *slots - 1
    })
}

fn steps(pointer: &str) -> Option<Vec<String>> {
    let steps: Vec<String> = pointer.strip_prefix('/')?.split('/').map(unescape).collect::<Option<_>>()?;
    (steps.len() <= MAX_DEPTH).then_some(steps)
}

fn unescape(step: &str) -> Option<String> {
    let plain = step.replace("~1", "/").replace("~0", "~");
    let tildes = |text: &str| text.matches('~').count();
    let legal = tildes(step) == step.matches("~0").count() + step.matches("~1").count();
    legal.then_some(plain)
}

/// Maximum number of steps in a pointer, and therefore the maximum recursion depth of the pass over a body.
pub(crate) const MAX_DEPTH: usize = 16;
