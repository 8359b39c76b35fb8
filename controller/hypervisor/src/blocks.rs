//! A domain's disks as libvirt has them now: their files, what was written to them, and jobs on them.

use crate::hypervisor::{COPY_TIMEOUT, Hypervisor, HypervisorError, LibvirtError, ours, refused};
use crate::native::Connection;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int};
use std::path::PathBuf;
use std::ptr;
use std::time::{Duration, Instant};
use uuid::Uuid;
use virt::domain::Domain as Handle;
use virt::error::ErrorNumber;
use virt_sys as sys;

/// Between looks at a job of libvirt's.
const JOB_PAUSE: Duration = Duration::from_millis(50);

impl Hypervisor {
    /// Bytes that a running domain's guest wrote to each of its disks since it was started, by target (`vda`). A domain
    /// that is not running has none.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn block_stats(&self, uuid: Uuid) -> Result<BTreeMap<String, u64>, HypervisorError> {
        self.call(move |connection| {
            let handle = ours(connection, uuid)?.ok_or(HypervisorError::Absent(uuid))?;
            written(&handle).map_err(|source| HypervisorError::Refused {
                what: "read the block statistics of",
                name: uuid.to_string(),
                source,
            })
        })
        .await
    }

    /// The active file of each of a domain's disks, by target: what it writes if it runs, else what it would. None: there
    /// is no such domain. What a snapshot or a commit has changed is told by this also to an agent that died while it
    /// happened: it waits until nothing of the kind is under way.
    ///
    /// # Errors
    /// [`HypervisorError`].
    pub async fn active_files(
        &self,
        uuid: Uuid,
    ) -> Result<Option<BTreeMap<String, PathBuf>>, HypervisorError> {
        let deadline = Instant::now() + COPY_TIMEOUT;
        loop {
            let found = self.call(move |connection| files_if_at_rest(connection, uuid)).await?;
            match found {
                Some(files) => return Ok(files),
                None if Instant::now() < deadline => tokio::time::sleep(JOB_PAUSE).await,
                None => return Err(HypervisorError::Timeout(COPY_TIMEOUT)),
            }
        }
    }
}

/// None: libvirt does something long to the domain, such as a snapshot that an earlier client asked for.
fn files_if_at_rest(
    connection: &Connection,
    uuid: Uuid,
) -> Result<Option<Option<BTreeMap<String, PathBuf>>>, HypervisorError> {
    let name = uuid.to_string();
    let Some(handle) = ours(connection, uuid)? else { return Ok(Some(None)) };
    let look_at = |error| refused("look at", &name, error);
    match handle.get_job_info() {
        Ok(job) if job.r#type != sys::VIR_DOMAIN_JOB_NONE as i32 => return Ok(None),
        Ok(_) => {}
        // libvirt was too busy with it for half a minute.
        Err(error) if error.code() == ErrorNumber::OperationTimeout => return Ok(None),
        // It does not run.
        Err(error) if error.code() == ErrorNumber::OperationInvalid => {}
        Err(error) => return Err(look_at(error)),
    }
    let xml = handle.get_xml_desc(0).map_err(look_at)?;
    Ok(Some(Some(active_files(&xml))))
}

/// Target and active file of each disk that has one.
pub(crate) fn active_files(xml: &str) -> BTreeMap<String, PathBuf> {
    let disks = xml.split("<disk ").skip(1).filter_map(|rest| rest.split_once("</disk>"));
    disks
        .filter_map(|(disk, _)| {
            let target = attribute(disk, "<target ", "dev")?;
            // What a backing store stands on has sources of its own.
            let own = disk.split("<backingStore").next().unwrap_or(disk);
            Some((target, PathBuf::from(attribute(own, "<source ", "file")?)))
        })
        .collect()
}

/// An attribute of the first element that begins so, with its references resolved.
fn attribute(xml: &str, element: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(element)?;
    let (tag, _) = rest.split_once('>')?;
    let (_, rest) = tag.split_once(&format!("{name}="))?;
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let text = rest[1..].split(quote).next()?;
    let plain = text.replace("&apos;", "'").replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
    Some(plain.replace("&amp;", "&"))
}

fn written(handle: &Handle) -> Result<BTreeMap<String, u64>, LibvirtError> {
    let mut domains = [handle.as_ptr(), ptr::null_mut()];
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the list of live domains ends with a null; `records` is freed below.
    let count = unsafe {
        sys::virDomainListGetStats(domains.as_mut_ptr(), sys::VIR_DOMAIN_STATS_BLOCK, &raw mut records, 0)
    };
    if count < 0 {
        return Err(virt::error::Error::last_error().into());
    }
    let mut found = BTreeMap::new();
    if count > 0 {
        // SAFETY: libvirt gave that many records, each with its parameters.
        let record = unsafe { &**records };
        let blocks = number(record, "block.count").unwrap_or(0);
        found.extend((0..blocks).filter_map(|index| {
            let name = text(record, &format!("block.{index}.name"))?;
            Some((name, number(record, &format!("block.{index}.wr.bytes"))?))
        }));
    }
    // SAFETY: made by libvirt, freed once; it takes a null too.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(found)
}

/// The parameter of that name, if there is one.
fn parameter<'a>(record: &'a sys::virDomainStatsRecord, name: &str) -> Option<&'a sys::virTypedParameter> {
    let name = CString::new(name).ok()?;
    // SAFETY: the record's parameters are live as long as it, and so is what is found among them.
    unsafe { sys::virTypedParamsGet(record.params, record.nparams, name.as_ptr()).as_ref() }
}

fn number(record: &sys::virDomainStatsRecord, name: &str) -> Option<u64> {
    let found = parameter(record, name)?;
    match u32::try_from(found.type_).ok()? {
        // SAFETY: the type says which member is set.
        sys::VIR_TYPED_PARAM_ULLONG => Some(unsafe { found.value.ul }),
        // SAFETY: as above.
        sys::VIR_TYPED_PARAM_UINT => Some(u64::from(unsafe { found.value.ui })),
        _ => None,
    }
}

fn text(record: &sys::virDomainStatsRecord, name: &str) -> Option<String> {
    let found = parameter(record, name)?;
    if u32::try_from(found.type_) != Ok(sys::VIR_TYPED_PARAM_STRING) {
        return None;
    }
    // SAFETY: the type says which member is set; libvirt's strings end with a zero.
    let text = unsafe { CStr::from_ptr(found.value.s) };
    text.to_str().ok().map(str::to_owned)
}

/// How a job on a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockJob {
    pub(crate) done: u64,
    pub(crate) total: u64,
}

/// None: there is no job on that disk.
pub(crate) fn block_job(handle: &Handle, target: &CStr) -> Result<Option<BlockJob>, LibvirtError> {
    let mut info = sys::virDomainBlockJobInfo { type_: 0, bandwidth: 0, cur: 0, end: 0 };
    // SAFETY: domain, string and structure are live.
    let found: c_int =
        unsafe { sys::virDomainGetBlockJobInfo(handle.as_ptr(), target.as_ptr(), &raw mut info, 0) };
    match found {
        0 => Ok(None),
        1 => Ok(Some(BlockJob { done: info.cur, total: info.end })),
        _ => Err(virt::error::Error::last_error().into()),
    }
}

pub(crate) fn block_commit(
    handle: &Handle,
    target: &CStr,
    [base, top]: [&CStr; 2],
    flags: sys::virDomainBlockCommitFlags,
) -> Result<(), LibvirtError> {
    // SAFETY: domain and strings are live.
    let done = unsafe {
        sys::virDomainBlockCommit(handle.as_ptr(), target.as_ptr(), base.as_ptr(), top.as_ptr(), 0, flags)
    };
    if done < 0 { Err(virt::error::Error::last_error().into()) } else { Ok(()) }
}

/// Ends a job; with the pivot flag, the disk goes on upon the job's target.
pub(crate) fn end_block_job(
    handle: &Handle,
    target: &CStr,
    flags: sys::virDomainBlockJobAbortFlags,
) -> Result<(), LibvirtError> {
    // SAFETY: domain and string are live.
    let done = unsafe { sys::virDomainBlockJobAbort(handle.as_ptr(), target.as_ptr(), flags) };
    if done < 0 { Err(virt::error::Error::last_error().into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_files_are_found_past_backing_stores_and_other_devices() {
        let xml = "<disk type='file' device='disk'>\n<driver name='qemu' type='qcow2'/>\
            <source file='/a &amp;&apos;b.qcow2' index='3'/>\n<backingStore type='file' index='2'><source file='/base'/>\
            <backingStore/></backingStore>\n<target dev='vda' bus='virtio'/></disk>\
            <disk type='network' device='disk'><source protocol='nbd' name='x'/><backingStore type='file'>\
            <source file='/no'/></backingStore><target dev='vdb' bus='virtio'/></disk>\
            <interface type='ethernet'><target dev='ct0'/></interface>";
        assert_eq!(active_files(xml), [("vda".to_owned(), PathBuf::from("/a &'b.qcow2"))].into());
        assert_eq!(active_files("<disk <source file='"), BTreeMap::new());
    }
}
