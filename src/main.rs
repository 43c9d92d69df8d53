//! Entry point of the `hookhold` command-line program.

mod cli;

/// Memory allocator of the process. hookhold uses jemalloc, because each delivery causes many small allocations, which another
/// thread often frees a moment later.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
