//! gRPC's health check: who gets an answer finds a server that serves.

use assay_wire::health::health_check_response::ServingStatus;
use assay_wire::health::health_server::Health;
use assay_wire::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::{Request, Response, Status};

/// Of the whole server; no service of it fails alone.
pub(super) struct HealthService;

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "" => Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() })),
            _ => Err(Status::not_found("unknown service")),
        }
    }
}
