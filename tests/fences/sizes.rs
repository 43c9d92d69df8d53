//! Checks the length of functions and files, the number of struct fields, and the uniqueness of type names.

use std::collections::BTreeMap;

use syn::spanned::Spanned;
use syn::visit::Visit;

/// Maximum length of a function in lines. A function of this length fits on a screen.
const MAX_FUNCTION_LINES: usize = 70;
/// Maximum length of a file in lines. A longer file must give the reason in its first lines, with the words "450 lines".
const MAX_FILE_LINES: usize = 450;
/// Maximum number of fields in a struct. A larger struct must give the reason in its doc comment, with the word "fields".
const MAX_FIELDS: usize = 15;
/// Source files whose maximum length is below [`MAX_FILE_LINES`], each with its maximum length in lines.
const SHORTER: &[(&str, usize)] = &[("src/cli/run.rs", 150)];
const FIRST_LINES: usize = 12;

/// Returns one line for each function, file, struct or type name that violates a limit.
pub fn violations(files: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in files {
        let lines = text.lines().count();
        let own = SHORTER.iter().find(|(file, _)| file == path).map(|(_, most)| *most);
        let explains = text.lines().take(FIRST_LINES).any(|line| line.contains("450 lines"));
        let most = own.unwrap_or(MAX_FILE_LINES);
        if lines > most && (own.is_some() || !explains) {
            found.push(format!("{path}: {lines} lines, at most {most}"));
        }
        let mut sizes = Sizes { path, found: &mut found, types: &mut types };
        sizes.visit_file(&syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}")));
    }
    let ambiguous = types.iter().filter(|(_, places)| places.len() > 1);
    found.extend(ambiguous.map(|(name, places)| format!("{name} names several types: {}", places.join(", "))));
    found
}

struct Sizes<'a> {
    path: &'a str,
    found: &'a mut Vec<String>,
    types: &'a mut BTreeMap<String, Vec<String>>,
}

impl Sizes<'_> {
    fn function(&mut self, name: &syn::Ident, whole: proc_macro2::Span, signature: proc_macro2::Span) {
        let lines = 1 + whole.end().line - signature.start().line;
        if lines > MAX_FUNCTION_LINES {
            self.found.push(format!("{}: fn {name}: {lines} lines, at most {MAX_FUNCTION_LINES}", self.path));
        }
    }

    fn define(&mut self, name: &syn::Ident) {
        self.types.entry(name.to_string()).or_default().push(format!("{}:{}", self.path, name.span().start().line));
    }
}

impl<'ast> Visit<'ast> for Sizes<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item.span(), item.sig.span());
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, item.span(), item.sig.span());
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.define(&item.ident);
        let doc = item.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).map(|doc| format!("{:?}", doc.meta));
        if item.fields.len() > MAX_FIELDS && !doc.collect::<String>().contains("fields") {
            self.found.push(format!("{}: struct {}: {} fields, at most {MAX_FIELDS}", self.path, item.ident, item.fields.len()));
        }
        syn::visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.define(&item.ident);
        syn::visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.define(&item.ident);
        syn::visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.define(&item.ident);
        syn::visit::visit_item_type(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !super::is_for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }
}
