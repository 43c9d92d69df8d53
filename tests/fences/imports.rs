//! Builds the import graph of the files in `src/` and finds its cycles. The graph has an edge from a file A to a file B if
//! A names an item of B.
//!
//! The import graph has no edges to ancestors, because a child module may name items of its ancestors. If the named module does
//! not define the item but imports it, the edge leads to the file that defines the item. Sibling modules that name each other
//! through their parent are therefore also a cycle in the graph.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;

/// Path of a module: the crate (`lib` or `bin`), followed by the module names from the outermost to the innermost.
type Module = Vec<String>;

/// Returns one line for each import cycle between `files` (path and text), such as `src/a.rs → src/b.rs → src/a.rs`.
pub fn circles(files: &[(String, String)]) -> Vec<String> {
    let graph = Graph::of(files);
    let mut circles = BTreeSet::new();
    for start in graph.arrows.keys() {
        if let Some(path) = graph.way_back(start) {
            // Reports each cycle once, starting from its first file in alphabetical order.
            if path.iter().min() == Some(start) {
                circles.insert(path.iter().chain([start]).cloned().collect::<Vec<_>>().join(" → "));
            }
        }
    }
    circles.into_iter().collect()
}

struct Graph {
    arrows: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn of(files: &[(String, String)]) -> Graph {
        let modules: BTreeMap<Module, Names> =
            files.iter().map(|(path, text)| (module_of(path), Names::of(path, text))).collect();
        let file_of: BTreeMap<&Module, &str> = modules.iter().map(|(module, names)| (module, names.file.as_str())).collect();
        let mut arrows = BTreeMap::new();
        for (module, names) in &modules {
            let targets = names.paths.iter().filter_map(|path| resolve(&modules, module, path, 8));
            let foreign = targets.filter(|target| !module.starts_with(target));
            let to: BTreeSet<String> = foreign.map(|target| file_of[&target].to_owned()).collect();
            arrows.insert(names.file.clone(), to);
        }
        Graph { arrows }
    }

    /// Returns the files of the shortest import cycle through the file `start`, or `None` if the file is in no cycle.
    fn way_back(&self, start: &str) -> Option<Vec<String>> {
        let mut ways = vec![vec![start.to_owned()]];
        let mut seen = BTreeSet::new();
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                for next in &self.arrows[way.last().expect("a way has a start")] {
                    if next == start {
                        return Some(way);
                    }
                    if seen.insert(next.clone()) {
                        longer.push(way.iter().chain([next]).cloned().collect());
                    }
                }
            }
            ways = longer;
        }
        None
    }
}

/// Resolves `path` in `module` and returns the module that defines the item, or `None` for an item of another crate.
fn resolve(modules: &BTreeMap<Module, Names>, module: &Module, path: &[String], depth: usize) -> Option<Module> {
    let mut at = module.clone();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => at.truncate(1),
        "hookhold" => at = vec!["lib".to_owned()],
        "self" => {}
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                at.pop();
                rest = &rest[1..];
            }
            return descend(modules, at, rest, depth);
        }
        first if modules.contains_key(&child(&at, first)) => return descend(modules, at, rest, depth),
        _ => return None,
    }
    descend(modules, at, &rest[1..], depth)
}

fn descend(modules: &BTreeMap<Module, Names>, mut at: Module, path: &[String], depth: usize) -> Option<Module> {
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let below = child(&at, first);
        if !modules.contains_key(&below) {
            break;
        }
        (at, rest) = (below, after);
    }
    let imported = rest.first().and_then(|name| modules[&at].imports.get(name)).filter(|_| depth > 0);
    imported.and_then(|path| resolve(modules, &at, path, depth - 1)).or(Some(at))
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// Returns the module path of a source file, such as `lib::journal` for `src/journal/mod.rs` or `bin::cli::run` for
/// `src/cli/run.rs`.
fn module_of(path: &str) -> Module {
    let inside = path.strip_prefix("src/").expect("every path begins with src/").trim_end_matches(".rs");
    let names: Vec<&str> = inside.split('/').filter(|name| !["lib", "main", "mod"].contains(name)).collect();
    let is_bin = inside == "main" || names.first() == Some(&"cli");
    [if is_bin { "bin" } else { "lib" }].into_iter().chain(names).map(str::to_owned).collect()
}

/// The item paths that a source file names outside its test module, and a map of the file's imports by local name.
#[derive(Default)]
struct Names {
    file: String,
    paths: BTreeSet<Vec<String>>,
    imports: BTreeMap<String, Vec<String>>,
}

impl Names {
    fn of(file: &str, text: &str) -> Names {
        let mut names = Names { file: file.to_owned(), ..Names::default() };
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        names.visit_file(&parsed);
        names
    }

    fn import(&mut self, tree: &syn::UseTree, path: &[String]) {
        let below = |name: &syn::Ident| path.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        let (name, full) = match tree {
            syn::UseTree::Path(inner) => return self.import(&inner.tree, &below(&inner.ident)),
            syn::UseTree::Group(group) => return group.items.iter().for_each(|tree| self.import(tree, path)),
            syn::UseTree::Name(name) if name.ident == "self" => (path.last().cloned().unwrap_or_default(), path.to_vec()),
            syn::UseTree::Name(name) => (name.ident.to_string(), below(&name.ident)),
            syn::UseTree::Rename(renamed) => (renamed.rename.to_string(), below(&renamed.ident)),
            syn::UseTree::Glob(_) => (String::from("*"), path.to_vec()),
        };
        self.paths.insert(full.clone());
        self.imports.insert(name, full);
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.paths.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !super::is_for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }
}
