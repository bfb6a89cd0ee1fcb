//! Drover's gRPC services and messages, generated from `proto/drover/v1/*.proto`.

/// Every file of the package with its comments, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/drover.v1.bin"));

pub mod v1 {
    #![expect(clippy::allow_attributes, reason = "generated code")]
    tonic::include_proto!("drover.v1");
}

// A session's frames go in and out of their envelopes without a copy.
impl From<bytes::Bytes> for v1::SessionRequest {
    fn from(frame: bytes::Bytes) -> Self {
        Self { frame }
    }
}

impl From<bytes::Bytes> for v1::SessionResponse {
    fn from(frame: bytes::Bytes) -> Self {
        Self { frame }
    }
}

impl From<v1::SessionRequest> for bytes::Bytes {
    fn from(request: v1::SessionRequest) -> Self {
        request.frame
    }
}

impl From<v1::SessionResponse> for bytes::Bytes {
    fn from(response: v1::SessionResponse) -> Self {
        response.frame
    }
}
