//! What a device asks for on behalf of its workloads: certificates and tokens.
//!
//! One signature of the device gives one of them: it names this stream, and a number that was not used on it.

use assay_wire::edge::{self, device_statement};

use super::{Session, SessionEnd, Standing};
use crate::grant::classic::ClassicRequest;
use crate::grant::jwt::TokenRequest;
use crate::grant::secret::{ReleaseError, ReleaseRequest, Released};
use crate::grant::svid::{SvidError, WorkloadRequest};
use crate::keys::Chain;
use crate::security::{Cause, Refused};

impl Session {
    pub(super) async fn workload_svid(
        &mut self,
        request: edge::WorkloadSvidRequest,
    ) -> Result<(), SessionEnd> {
        self.must_be_proven()?;
        let may_ask = self.svid_requests.take(self.server.clock.instant());
        let edge::WorkloadSvidRequest { request_id, entry_id, csr, device_signature, number } = request;
        let request = WorkloadRequest { number, entry_id, csr, device_signature };
        let granted = match may_ask {
            true => self.sign_svid(&request).await.map_err(|error| self.denied(&request.entry_id, &error)),
            false => Err(TOO_MANY.to_owned()),
        };
        let (chain, denied) = apart(granted.map(|chain| chain.certificates));
        let svid = chain.into_iter().map(Into::into).collect();
        let response = edge::WorkloadSvidResponse { request_id, entry_id: request.entry_id, svid, denied };
        self.say(device_statement::Body::WorkloadSvid(response)).await
    }

    pub(super) async fn jwt_svid(&mut self, request: edge::JwtSvidRequest) -> Result<(), SessionEnd> {
        self.must_be_proven()?;
        let may_ask = self.token_requests.take(self.server.clock.instant());
        let edge::JwtSvidRequest { request_id, entry_id, audience, device_signature, number } = request;
        let request = TokenRequest { number, entry_id, audience, device_signature };
        let granted = match may_ask {
            true => self.sign_token(&request).await.map_err(|error| self.denied(&request.entry_id, &error)),
            false => Err(TOO_MANY.to_owned()),
        };
        let (token, denied) = apart(granted);
        let response = edge::JwtSvidResponse { request_id, entry_id: request.entry_id, token, denied };
        self.say(device_statement::Body::JwtSvid(response)).await
    }

    pub(super) async fn classic(&mut self, request: edge::ClassicRequest) -> Result<(), SessionEnd> {
        self.must_be_proven()?;
        let may_ask = self.svid_requests.take(self.server.clock.instant());
        let edge::ClassicRequest { public, certify_info, certify_signature, number } = request;
        let request = ClassicRequest { number, public, certified: (certify_info, certify_signature) };
        let granted = match may_ask {
            true => self.sign_classic(&request).await.map_err(|error| self.denied("classic", &error)),
            false => Err(TOO_MANY.to_owned()),
        };
        let (certificate, denied) = apart(granted);
        let response = edge::ClassicResponse { certificate: certificate.into(), denied };
        self.say(device_statement::Body::Classic(response)).await
    }

    pub(super) async fn secret(&mut self, request: edge::SecretRequest) -> Result<(), SessionEnd> {
        self.must_be_proven()?;
        let may_ask = self.svid_requests.take(self.server.clock.instant());
        let edge::SecretRequest { name, version, public, certify_info, certify_signature, number } = request;
        let certified = (certify_info, certify_signature);
        let request = ReleaseRequest { number, name, version, public, certified };
        let released = match may_ask {
            true => self.release(&request).await.map_err(|error| self.withheld(&request.name, &error)),
            false => Err(TOO_MANY.to_owned()),
        };
        let mut response =
            edge::SecretResponse { name: request.name, version, ..edge::SecretResponse::default() };
        match released {
            Ok(Released { sealed, autorun }) => {
                response.encapsulated = sealed.encapsulated.into();
                response.ciphertext = sealed.ciphertext.into();
                response.autorun = autorun;
            }
            Err(denied) => response.denied = denied,
        }
        self.say(device_statement::Body::Secret(response)).await
    }

    async fn release(&mut self, request: &ReleaseRequest) -> Result<Released, ReleaseError> {
        self.count(request.number).map_err(|_| ReleaseError::Replayed)?;
        let (device, now) = (&self.attester.device, self.server.now());
        self.server.releasing.release(device, request, &self.stream, now).await
    }

    /// What the device is told of a secret that it is not given.
    fn withheld(&self, secret: &str, error: &ReleaseError) -> String {
        let id = &self.attester.device.id;
        if let ReleaseError::Replayed | ReleaseError::NotCertified(_) = error {
            let (who, from) = (id.to_string(), self.peer().to_string());
            self.server.refused(Refused { cause: Cause::Request, who, from, why: error.to_string() });
        }
        tracing::info!(device = %id, secret, reason = %error, "secret denied");
        error.sentence()
    }

    async fn sign_classic(&mut self, request: &ClassicRequest) -> Result<Vec<u8>, SvidError> {
        self.count(request.number)?;
        let (device, now) = (&self.attester.device, self.server.now());
        self.server.granting.classic(device, request, &self.stream, now).await
    }

    /// A stream that has not proven to be the device's asks for nothing.
    pub(super) fn must_be_proven(&self) -> Result<(), SessionEnd> {
        match self.standing {
            Standing::Proven(_) => Ok(()),
            Standing::Unproven { .. } => Err(SessionEnd::OutOfTurn),
        }
    }

    async fn sign_svid(&mut self, request: &WorkloadRequest) -> Result<Chain, SvidError> {
        request.authentic(&self.attester.device, &self.stream)?;
        self.count(request.number)?;
        let timer = self.server.metrics.issuing();
        let granted =
            self.server.granting.workload_svid(&self.attester.device, request, self.server.now()).await?;
        timer.done();
        Ok(granted)
    }

    async fn sign_token(&mut self, request: &TokenRequest) -> Result<String, SvidError> {
        request.authentic(&self.attester.device, &self.stream)?;
        self.count(request.number)?;
        self.server.granting.token(&self.attester.device, request, self.server.now()).await
    }

    fn count(&mut self, number: u64) -> Result<(), SvidError> {
        if number <= self.requested {
            return Err(SvidError::Replayed);
        }
        self.requested = number;
        Ok(())
    }

    /// What the device is told.
    fn denied(&self, entry: &str, error: &SvidError) -> String {
        let id = &self.attester.device.id;
        if let SvidError::Signature(_) | SvidError::Replayed | SvidError::NotCertified(_) = error {
            let (who, from) = (id.to_string(), self.peer().to_string());
            self.server.refused(Refused { cause: Cause::Request, who, from, why: error.to_string() });
        }
        tracing::info!(device = %id, entry, reason = %error, "workload svid denied");
        error.sentence()
    }
}

/// What was granted, and why not.
fn apart<T: Default>(granted: Result<T, String>) -> (T, String) {
    match granted {
        Ok(granted) => (granted, String::new()),
        Err(denied) => (T::default(), denied),
    }
}

const TOO_MANY: &str = "unavailable: too many requests, try again in a moment";
