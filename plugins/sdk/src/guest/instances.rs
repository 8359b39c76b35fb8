//! The interface `instances`, which two worlds share.

use super::Imports;
use super::bindings::collective::policy::instances;
use crate::Instances;

impl Instances for Imports {
    fn instance_count(&self) -> usize {
        instances::instance_count() as usize
    }
    fn instance_name(&self, instance: u32) -> String {
        instances::instance_name(instance)
    }
    fn deployments(&self) -> Vec<u32> {
        instances::deployments()
    }
    fn members(&self) -> Vec<u32> {
        instances::members()
    }
    fn hosts(&self) -> Vec<u32> {
        instances::hosts()
    }
    fn sites(&self) -> Vec<u32> {
        instances::sites()
    }
    fn appliances(&self) -> Vec<u32> {
        instances::appliances()
    }
    fn versions(&self) -> Vec<u32> {
        instances::versions()
    }
    fn states(&self) -> Vec<u8> {
        instances::states()
    }
    fn healths(&self) -> Vec<u8> {
        instances::healths()
    }
    fn started(&self) -> Vec<u64> {
        instances::started()
    }
    fn memory_bytes(&self) -> Vec<u64> {
        instances::memory_bytes()
    }
    fn dirty_bytes(&self) -> Vec<u64> {
        instances::dirty_bytes()
    }
    fn checkpointed(&self) -> Vec<u64> {
        instances::checkpointed()
    }
}
