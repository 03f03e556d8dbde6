//! Encodings that prost does not have: RecordIO, Mesos' JSON dialect, resource arithmetic.
