//! What the fuzz targets assert. The laws are in [`laws`]; the properties and the replay of seeds include the same
//! folder, so that each law is written once.

#[path = "../../proptests/admitted.rs"]
pub mod admitted;
pub mod laws;
