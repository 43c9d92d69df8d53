//! The body locations that a recipe reads: JSON pointers (RFC 6901), form fields, and JSON pointers into a form field. hookhold
//! merges the locations into trees, so that one pass over a body finds all values. This module does not read bodies.

/// All body locations that a recipe reads. Each distinct location has a slot: an index into the list of values found in a body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pointers {
    /// The root of the tree of JSON pointers into a JSON body.
    pub(crate) root: Node,
    /// The form fields that the recipe reads.
    pub(crate) form: Vec<FormField>,
    /// The number of slots. Each distinct location in a body has one slot.
    pub(crate) slots: usize,
    /// The number of slots of an item, or `None` if no node of `root` is the array of a batch.
    pub(crate) item_slots: Option<usize>,
}

/// One form field that a recipe reads.
#[derive(Clone, Debug)]
pub(crate) struct FormField {
    /// The decoded name of the form field.
    pub(crate) name: String,
    /// The index of the field's value in the list of located values, or `None` if the recipe reads only JSON values inside the
    /// field.
    pub(crate) slot: Option<usize>,
    /// The root of the tree of JSON pointers into the field's value.
    pub(crate) root: Node,
}

/// One node of a tree of JSON pointers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// The index of the node's value in the list of located values, or `None` if no pointer ends at this node.
    pub(crate) slot: Option<usize>,
    /// The child nodes and their names. Each name is the name of an object member or the decimal index of an array element.
    pub(crate) children: Vec<(String, Node)>,
    /// The values to find in each element, or `None` if the node is not the array of a batch.
    pub(crate) each: Option<Box<EachItem>>,
}

/// The values that a recipe reads from each item of a batch. These values have slots of their own.
#[derive(Clone, Debug)]
pub(crate) struct EachItem {
    /// The root of the tree of JSON pointers into an item.
    pub(crate) root: Node,
    /// The number of slots of an item.
    pub(crate) slots: usize,
    /// The maximum number of items whose values a pass over a body finds.
    pub(crate) max_items: usize,
}

impl Pointers {
    /// Returns the slot (the index of the located value) for a JSON pointer such as `/data/object/id`. Returns `None` if the
    /// text is not a valid pointer, is empty, or has more than [`MAX_DEPTH`] steps.
    pub(crate) fn slot(&mut self, pointer: &str) -> Option<usize> {
        let steps = steps(pointer)?;
        let node = steps.into_iter().fold(&mut self.root, Node::child);
        Some(slot_of(&mut node.slot, &mut self.slots))
    }

    /// Returns the slot (the index of the located value) for the form field `name`, or `None` if the name is empty.
    pub(crate) fn field_slot(&mut self, name: &str) -> Option<usize> {
        let at = self.field(name)?;
        Some(slot_of(&mut self.form[at].slot, &mut self.slots))
    }

    /// Returns the slot (the index of the located value) for a JSON pointer into a form field, written `NAME/POINTER`. Returns
    /// `None` if the text is malformed.
    pub(crate) fn field_json_slot(&mut self, text: &str) -> Option<usize> {
        let (name, pointer) = text.split_at(text.find('/')?);
        let steps = steps(pointer)?;
        let at = self.field(name)?;
        let node = steps.into_iter().fold(&mut self.form[at].root, Node::child);
        Some(slot_of(&mut node.slot, &mut self.slots))
    }

    /// Makes the array at a JSON pointer the array of a batch. The empty pointer is the whole body. `items` contains the
    /// locations inside an item. Returns `None` if the text is not a valid pointer.
    pub(crate) fn set_batch(&mut self, pointer: &str, items: Pointers, max_items: usize) -> Option<()> {
        let node = steps_to_array(pointer)?.into_iter().fold(&mut self.root, Node::child);
        node.each = Some(Box::new(EachItem { root: items.root, slots: items.slots, max_items }));
        self.item_slots = Some(items.slots);
        Some(())
    }

    fn field(&mut self, name: &str) -> Option<usize> {
        let known = self.form.iter().position(|field| field.name == name);
        let new = || {
            self.form.push(FormField { name: name.to_owned(), slot: None, root: Node::default() });
            self.form.len() - 1
        };
        (!name.is_empty()).then(|| known.unwrap_or_else(new))
    }

    /// Returns true if the recipe reads no values from the body.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots == 0 && self.item_slots.is_none()
    }
}

impl Node {
    /// Returns the index of the child node called `name`, or `None` if the node has no such child.
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        self.children.iter().position(|(child, _)| child.as_bytes() == name)
    }

    /// Returns the index of the child node for the array element at `index`, or `None` if the node has no such child. Names
    /// such as `01` and `+1` match only object members, not array elements.
    pub(crate) fn find_index(&self, index: usize) -> Option<usize> {
        let is_index = |name: &str| !(name.starts_with('+') || (name.len() > 1 && name.starts_with('0')));
        self.children.iter().position(|(name, _)| is_index(name) && name.parse() == Ok(index))
    }

    /// Returns true if the location with the index `slot` is at this node or below it. The items of a batch have other indexes.
    pub(crate) fn contains(&self, slot: usize) -> bool {
        self.slot == Some(slot) || self.children.iter().any(|(_, child)| child.contains(slot))
    }

    /// Returns true if no pointer ends at this node or below it.
    pub(crate) fn is_empty(&self) -> bool {
        self.slot.is_none() && self.each.is_none() && self.children.is_empty()
    }

    fn child(&mut self, name: String) -> &mut Node {
        let at = self.find(name.as_bytes()).unwrap_or_else(|| {
            self.children.push((name, Node::default()));
            self.children.len() - 1
        });
        &mut self.children[at].1
    }
}

/// Returns the slot number of a body location. If the location has no slot yet, assigns the next free number.
fn slot_of(slot: &mut Option<usize>, slots: &mut usize) -> usize {
    *slot.get_or_insert_with(|| {
        *slots += 1;
        *slots - 1
    })
}

/// Returns true if the text is a pointer to the array of a batch: a JSON pointer, or an empty text for the whole body.
pub(crate) fn is_array_pointer(pointer: &str) -> bool {
    steps_to_array(pointer).is_some()
}

fn steps_to_array(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() { Some(Vec::new()) } else { steps(pointer) }
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

/// Maximum number of steps in a pointer. The pass over a body recurses once for each step, so this number also limits the
/// recursion depth.
pub(crate) const MAX_DEPTH: usize = 16;
