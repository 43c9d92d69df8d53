//! JSON pointers (RFC 6901) folded into one tree, so that one pass over a body finds them all.

/// All pointers of a recipe; each distinct one has a slot.
#[derive(Debug, Default)]
pub struct Pointers {
    /// Where the pass begins.
    pub root: Node,
    /// How many slots there are.
    pub slots: usize,
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
        let steps: Vec<String> = pointer.strip_prefix('/')?.split('/').map(unescape).collect::<Option<_>>()?;
        if steps.len() > MAX_DEPTH {
            return None;
        }
        let node = steps.into_iter().fold(&mut self.root, Node::child);
        if node.slot.is_none() {
            node.slot = Some(self.slots);
            self.slots += 1;
        }
        node.slot
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

    fn child(&mut self, name: String) -> &mut Node {
        let at = self.find(name.as_bytes()).unwrap_or_else(|| {
            self.children.push((name, Node::default()));
            self.children.len() - 1
        });
        &mut self.children[at].1
    }
}

fn unescape(step: &str) -> Option<String> {
    let plain = step.replace("~1", "/").replace("~0", "~");
    let tildes = |text: &str| text.matches('~').count();
    let legal = tildes(step) == step.matches("~0").count() + step.matches("~1").count();
    legal.then_some(plain)
}

/// How deep a pointer may lead: the pass over a body recurses at most this far.
pub const MAX_DEPTH: usize = 16;
