//! Plain tables without borders, with two spaces between columns, for terminals and for `cut` and `awk`.

use comfy_table::{CellAlignment, Table, presets::NOTHING};

/// Returns an empty table with the column headings `headings`. Right-aligns the columns whose indexes are in `right`.
pub(super) fn new(headings: &[&str], right: &[usize]) -> Table {
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
