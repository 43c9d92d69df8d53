//! Plain tables: no borders, two spaces between columns, so that `cut` and `awk` work on them.

use comfy_table::{CellAlignment, Table, presets::NOTHING};

/// A table with `headings`; the columns listed in `right` hold numbers.
pub fn new(headings: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headings.to_vec());
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
