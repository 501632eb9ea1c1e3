//! The ladder, run and counted: which rungs, over what, from which cache, and what each cost.

pub mod cache;
pub mod card;
pub mod helper;
pub mod plan;
pub mod run;
pub mod site;
