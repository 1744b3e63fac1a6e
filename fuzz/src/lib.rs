//! The bodies of the fuzz targets, as the judge has them.
//!
//! They are compiled from the judge's own source and not from its crate, which brings along the mint, the agent and an HTTP client: all of
//! that would be instrumented, and its counters would drown those of the decoders.

#[path = "../../tests/src"]
mod judge {
    pub mod fuzz;
}

pub use judge::fuzz::*;
