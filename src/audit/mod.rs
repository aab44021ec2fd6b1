//! temp
/// x
pub struct Receipt(());
