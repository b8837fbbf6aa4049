//! The wire formats: protobuf messages of the edge protocol and of the SPIFFE Workload API.
//!
//! Generated types live in [`edge`] and [`workload`]; conversions to domain types that both ends need stand beside
//! them. Nothing here decides anything.

/// The edge protocol, `assay.edge.v1`.
#[expect(missing_docs, clippy::all, reason = "generated; documented in proto/edge.proto")]
pub mod edge {
    tonic::include_proto!("assay.edge.v1");
}

/// The SPIFFE Workload API (no package).
#[expect(missing_docs, clippy::all, reason = "generated; documented in proto/workload.proto")]
pub mod workload {
    tonic::include_proto!("_");
}
