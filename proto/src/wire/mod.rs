//! Encodings that prost does not have: RecordIO ([`recordio`]), Mesos' JSON dialect ([`json`]), texts that are none ([`text`]), and
//! resource arithmetic ([`resources`], with the compact [`amounts`] for matching and allocation).
//! Mechanism only: which resources to take, and what to answer to bad input, is the caller's business.

pub mod amounts;
pub mod json;
pub mod ranges;
pub mod recordio;
pub mod resources;
pub mod text;
