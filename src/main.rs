//! The `hookhold` command.

mod cli;

/// The allocator is jemalloc, because a delivery makes many small allocations that are freed a moment later, often by another
/// thread.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
