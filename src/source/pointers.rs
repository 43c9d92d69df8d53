//! The places in a body that a recipe's locators point to, folded together so that one pass over a body finds them all:
//! JSON pointers (RFC 6901), form fields, and JSON pointers inside a form field.

/// All places of a recipe; each distinct one has a slot.
#[derive(Debug, Default)]
pub struct Pointers {
    /// Where the pass over a body in JSON begins.
    pub root: Node,
    /// What is looked for in a body that is a form.
    pub form: Vec<Field>,
    /// How many slots there are.
    pub slots: usize,
}

/// One field of a form.
#[derive(Debug)]
pub struct Field {
    /// Its name, decoded.
    pub name: String,
    /// The slot of its value.
    pub slot: Option<usize>,
    /// Where the pass over a value in JSON begins.
    pub root: Node,
}

/// One place in a JSON document that some pointer leads to or through.
#[derive(Debug, Default)]
pub struct Node {
    /// The slot of the pointer that ends here.
    pub slot: Option<usize>,
    /// The members that pointers lead through: names, or indexes in decimal.
    pub children: Vec<(String, Node)>,
}

impl Pointers {
    /// The slot of a pointer such as `/data/object/id`. `None` when it is not a pointer, empty, or deeper than
    /// [`MAX_DEPTH`].
    pub fn slot(&mut self, pointer: &str) -> Option<usize> {
        let steps = steps(pointer)?;
        let node = steps.into_iter().fold(&mut self.root, Node::child);
        Some(taken(&mut node.slot, &mut self.slots))
    }

    /// The slot of the form field `name`. `None` when the name is empty.
    pub fn field_slot(&mut self, name: &str) -> Option<usize> {
        let at = self.field(name)?;
        Some(taken(&mut self.form[at].slot, &mut self.slots))
    }

    /// The slot of a pointer into the JSON that the form field `NAME` holds, written `NAME/POINTER`.
    pub fn field_json_slot(&mut self, place: &str) -> Option<usize> {
        let (name, pointer) = place.split_at(place.find('/')?);
        let steps = steps(pointer)?;
        let at = self.field(name)?;
        let node = steps.into_iter().fold(&mut self.form[at].root, Node::child);
        Some(taken(&mut node.slot, &mut self.slots))
    }

    fn field(&mut self, name: &str) -> Option<usize> {
        let known = self.form.iter().position(|field| field.name == name);
        let new = || {
            self.form.push(Field { name: name.to_owned(), slot: None, root: Node::default() });
            self.form.len() - 1
        };
        (!name.is_empty()).then(|| known.unwrap_or_else(new))
    }

    /// True when no body has to be looked into.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }
}

impl Node {
    /// The index of the child called `name`.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.children.iter().position(|(child, _)| child.as_bytes() == name)
    }

    /// The index of the child that stands for element `index` of an array; `01` and `+1` are names, not indexes.
    pub fn find_index(&self, index: usize) -> Option<usize> {
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

/// The slot that a place has, or the next one.
fn taken(slot: &mut Option<usize>, slots: &mut usize) -> usize {
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

/// How deep a pointer may lead: the pass over a body recurses at most this far.
pub const MAX_DEPTH: usize = 16;
