//! The wire formats: protobuf messages of the edge protocol, the SPIFFE Workload API, Envoy's secret discovery and SPIRE's
//! server API.
//!
//! Generated types live in [`edge`], [`workload`] and [`envoy`]. What both ends must compute alike stands beside them:
//! [`pcr`] converts PCR values, [`binding`] gives the exact bytes that proofs and signatures are over, [`together`] the
//! tree of statements that one signature is for, [`doctor`] the report of what is
//! wrong, [`clocks`] how far two clocks are apart, [`console`] what operators' programs ask and are told, [`keylime`] what agents
//! and operators of Keylime do, [`node_attestors`] what nodes of SPIRE's show. Nothing here decides anything.

pub mod binding;
pub mod clocks;
mod codec;
pub mod console;
pub mod doctor;
pub mod keylime;
pub mod node_attestors;
pub mod pcr;
pub mod together;

/// The edge protocol, `assay.edge.v1`.
#[expect(missing_docs, clippy::allow_attributes, reason = "generated; documented in proto/edge.proto")]
pub mod edge {
    tonic::include_proto!("assay.edge.v1");
}

/// The SPIFFE Workload API, which has no package.
#[expect(missing_docs, clippy::allow_attributes, reason = "generated; documented by the SPIFFE standard")]
pub mod workload {
    tonic::include_proto!("_");
}

/// Envoy's secret discovery service, v3.
#[expect(missing_docs, clippy::allow_attributes, reason = "generated; documented in proto/envoy_sds.proto")]
pub mod envoy {
    tonic::include_proto!("envoy.service.secret.v3");
}

/// SPIRE's server API. As what is generated names other packages by their place, the modules are where their packages are.
#[expect(missing_docs, clippy::allow_attributes, reason = "generated; documented in proto/spire/")]
pub mod spire {
    pub mod api {
        pub mod types {
            tonic::include_proto!("spire.api.types");
        }
        pub mod server {
            pub mod agent {
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.agent.v1");
                }
            }
            pub mod bundle {
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.bundle.v1");
                }
            }
            pub mod entry {
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.entry.v1");
                }
            }
            pub mod svid {
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.svid.v1");
                }
            }
            pub mod trustdomain {
                pub mod v1 {
                    tonic::include_proto!("spire.api.server.trustdomain.v1");
                }
            }
        }
    }
    pub use api::server::{
        agent::v1 as agent, bundle::v1 as bundle, entry::v1 as entry, svid::v1 as svid,
        trustdomain::v1 as trustdomain,
    };
    pub use api::types;
}

/// gRPC's health check.
#[expect(missing_docs, clippy::allow_attributes, reason = "generated; documented in proto/grpc_health.proto")]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Metadata that every Workload API request carries, so that no browser can be made to send one.
pub const WORKLOAD_API_HEADER: &str = "workload.spiffe.io";

/// Bytes of an edge message at most: a 100,000-entry IMA list with long paths, sent whole, stays below it.
pub const EDGE_MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Bytes of a telemetry submission at most (OTLP's customary 4 MiB and room for the statement).
pub const SUBMIT_BYTES_MAX: usize = 5 << 20;
