//! One instance's virtual hardware, and the libvirt document that says so. Pure: values in, text out.

use crate::accelerator::Kind;
use crate::disk::{Cache, Chain};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use types::{InstanceId, MacAddress, VolumeName};
use uuid::Uuid;

/// Namespace of our element in a domain's `<metadata>`. A domain without it is not ours.
pub const MARK_URI: &str = "urn:collective:1";
/// Name of the virtio-serial port a guest says `ready` on.
pub const HEALTH_PORT: &str = "org.collective.health.0";
/// Longest volume name in bytes: virtio-blk cuts a serial off after 20, and ours starts with `vol-`.
pub const VOLUME_NAME_LEN_MAX: usize = 16;
/// What a machine is when it boots: QEMU's newest of its kind.
const MACHINE_TYPE: &str = "q35";

/// Whose a domain is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The instance.
    pub instance: InstanceId,
    /// Its incarnation; also the domain's UUID.
    pub incarnation: Uuid,
}

/// One instance's virtual hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Whose it is.
    pub mark: Mark,
    /// What runs its processors.
    pub accelerator: Kind,
    /// Processors.
    pub vcpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// How the system disk and the volumes are opened.
    pub cache: Cache,
    /// The disk that it boots from: an overlay, the layers beneath it, and the image.
    pub system: Chain,
    /// The user's own disks.
    pub volumes: Vec<VolumeDisk>,
    /// Configuration for the guest: a raw FAT file system, shown read-only.
    pub config_disk: PathBuf,
    /// NICs in the appliance's order.
    pub nics: Vec<Nic>,
    /// Where the serial console is logged, appended.
    pub console_log: PathBuf,
    /// Socket of the health port, made by QEMU.
    pub health_socket: PathBuf,
}

/// One volume as a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDisk {
    /// The guest finds it as `/dev/disk/by-id/virtio-vol-NAME`.
    pub name: VolumeName,
    /// Its bytes: a raw file, or a qcow2 file over layers.
    pub chain: Chain,
}

/// One NIC on a tap that netd has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The tap.
    pub tap: String,
    /// The guest's address.
    pub mac: MacAddress,
    /// In bytes.
    pub mtu: u16,
}

impl Machine {
    /// The domain's name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("c-{}-{}", self.mark.instance.deployment, self.mark.instance.member)
    }

    /// The target of the disk that it boots from.
    pub const SYSTEM_TARGET: &'static str = "vda";

    /// The target of the volume at this place of `volumes`.
    #[must_use]
    pub fn volume_target(index: usize) -> String {
        target(index + 1)
    }

    /// The libvirt document.
    #[must_use]
    pub fn xml(&self) -> String {
        self.xml_on(MACHINE_TYPE)
    }

    /// The libvirt document with a given machine type: a guest that goes on from saved memory needs that which it was
    /// saved on.
    pub(crate) fn xml_on(&self, machine_type: &str) -> String {
        let (kind, cpu) = match self.accelerator {
            Kind::Kvm => ("kvm", "<cpu mode='host-passthrough' check='none'/>"),
            Kind::Tcg => ("qemu", "<cpu mode='maximum'/>"),
        };
        let mut xml = format!(
            "<domain type='{kind}'>\n  \
             <name>{name}</name>\n  <uuid>{uuid}</uuid>\n  \
             <metadata><collective:mark xmlns:collective='{MARK_URI}' instance='{instance}' incarnation='{uuid}'/></metadata>\n  \
             <memory unit='b'>{memory}</memory>\n  <vcpu>{vcpus}</vcpu>\n  \
             <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>\n  \
             <os><type arch='x86_64' machine='{machine_type}'>hvm</type></os>\n  \
             <features><acpi/><apic/></features>\n  {cpu}\n  <clock offset='utc'/>\n  \
             <on_poweroff>destroy</on_poweroff>\n  <on_reboot>restart</on_reboot>\n  <on_crash>destroy</on_crash>\n  \
             <devices>\n    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n",
            name = escape(&self.name()),
            uuid = self.mark.incarnation,
            instance = escape(&self.mark.instance.to_string()),
            machine_type = escape(machine_type),
            memory = self.memory_bytes,
            vcpus = self.vcpus,
        );
        self.disks(&mut xml);
        for nic in &self.nics {
            nic_xml(&mut xml, nic);
        }
        self.fixed_devices(&mut xml);
        xml.push_str("  </devices>\n</domain>\n");
        xml
    }

    fn disks(&self, xml: &mut String) {
        let cache = match self.cache {
            Cache::Direct => "none",
            Cache::Writeback => "writeback",
        };
        // A failing disk stops the guest instead of telling it: an absent image is a wait, never an I/O error.
        let stop = "error_policy='stop' rerror_policy='stop'";
        let mut disk = |chain: &Chain, target: &str, rest: std::fmt::Arguments<'_>| {
            let format = chain.active.format.as_str();
            push(
                xml,
                format_args!(
                    "    <disk type='file' device='disk'>\n      \
                     <driver name='qemu' type='{format}' cache='{cache}' discard='unmap' {stop}/>\n"
                ),
            );
            chain.sources(xml);
            push(
                xml,
                format_args!("      <target dev='{target}' bus='virtio'/>\n      {rest}\n    </disk>\n"),
            );
        };
        disk(&self.system, Self::SYSTEM_TARGET, format_args!("<boot order='1'/>"));
        for (index, volume) in self.volumes.iter().enumerate() {
            let name = escape(volume.name.as_str());
            disk(&volume.chain, &Self::volume_target(index), format_args!("<serial>vol-{name}</serial>"));
        }
        push(
            xml,
            format_args!(
                "    <disk type='file' device='disk'>\n      \
                 <driver name='qemu' type='raw' cache='writeback' {stop}/>\n      \
                 <source file='{file}'/>\n      <target dev='{target}' bus='virtio'/>\n      \
                 <serial>config</serial>\n      <readonly/>\n    </disk>\n",
                file = path(&self.config_disk),
                target = target(self.volumes.len() + 1),
            ),
        );
    }

    fn fixed_devices(&self, xml: &mut String) {
        push(
            xml,
            format_args!(
                "    <serial type='pty'><log file='{log}' append='on'/><target type='isa-serial' port='0'/></serial>\n    \
                 <console type='pty'><target type='serial' port='0'/></console>\n    \
                 <channel type='unix'><source mode='bind' path='{health}'/>\
                 <target type='virtio' name='{HEALTH_PORT}'/></channel>\n    \
                 <controller type='usb' model='none'/>\n    <memballoon model='virtio'/>\n    \
                 <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n",
                log = path(&self.console_log),
                health = path(&self.health_socket),
            ),
        );
    }
}

fn nic_xml(xml: &mut String, nic: &Nic) {
    push(
        xml,
        format_args!(
            "    <interface type='ethernet'><mac address='{mac}'/><target dev='{tap}' managed='no'/>\
             <model type='virtio'/><mtu size='{mtu}'/><rom enabled='no'/></interface>\n",
            mac = nic.mac,
            tap = escape(&nic.tap),
            mtu = nic.mtu,
        ),
    );
}

pub(crate) fn push(xml: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = xml.write_fmt(text);
}

/// `vda`, `vdb`, ... `vdz`, `vdaa`.
fn target(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    letters.iter().rev().fold("vd".to_owned(), |name, letter| name + letter.encode_utf8(&mut [0; 4]))
}

pub(crate) fn path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

/// Text for element content and quoted attributes. A character XML 1.0 cannot hold becomes U+FFFD.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '\'' => safe.push_str("&apos;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Reads our element as libvirt gives it back.
pub(crate) fn parse_mark(xml: &str) -> Option<Mark> {
    Some(Mark {
        instance: attribute(xml, "instance")?.parse().ok()?,
        incarnation: attribute(xml, "incarnation")?.parse().ok()?,
    })
}

/// An attribute's value; ours hold no character that needs escaping.
fn attribute<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let start = xml.find(&format!(" {name}="))? + name.len() + 2;
    let quote = xml[start..].chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    xml[start + 1..].split(quote).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Export;

    fn workspace() -> Machine {
        Machine {
            mark: Mark {
                instance: "office/workspace".parse().unwrap(),
                incarnation: "11111111-2222-4333-8444-555555555555".parse().unwrap(),
            },
            accelerator: Kind::Tcg,
            vcpus: 2,
            memory_bytes: 384 << 20,
            cache: Cache::Direct,
            system: Chain::over_image(
                "/s/instances/1/system.qcow2".into(),
                Export { name: "ab".repeat(32), socket: "/run/collective/nbd.sock".into() },
            ),
            volumes: vec![VolumeDisk {
                name: VolumeName::new("home").unwrap(),
                chain: Chain::raw("/s/volumes/a & b's <disk>.raw".into()),
            }],
            config_disk: "/s/instances/1/config.img".into(),
            nics: vec![Nic {
                tap: "ct0123456789".into(),
                mac: "02:1f:00:00:00:01".parse().unwrap(),
                mtu: 1450,
            }],
            console_log: "/s/instances/1/console.log".into(),
            health_socket: "/run/collective/agent/1.sock".into(),
        }
    }

    /// Regenerate: set `COLLECTIVE_GOLDEN=write` and run this test.
    #[test]
    fn a_machine_is_rendered_as_the_golden_document() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine.golden.xml");
        let xml = workspace().xml();
        if std::env::var_os("COLLECTIVE_GOLDEN").is_some() {
            std::fs::write(&golden, &xml).unwrap();
        }
        assert_eq!(xml, std::fs::read_to_string(golden).unwrap());
    }

    #[test]
    fn kvm_changes_the_type_and_the_processor_only() {
        let kvm = Machine { accelerator: Kind::Kvm, ..workspace() }.xml();
        let back = kvm
            .replace("type='kvm'", "type='qemu'")
            .replace("mode='host-passthrough' check='none'", "mode='maximum'");
        assert_eq!(back, workspace().xml());
    }

    #[test]
    fn no_text_ends_its_element() {
        let xml = workspace().xml();
        assert!(xml.contains("/s/volumes/a &amp; b&apos;s &lt;disk&gt;.raw"), "{xml}");
        assert_eq!(escape("a\0b\u{7}\n"), "a\u{fffd}b\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_mark_is_read_back_with_either_quote() {
        let xml = workspace().xml();
        let ours = Some(workspace().mark);
        assert_eq!(parse_mark(&xml), ours);
        assert_eq!(parse_mark(&xml.replace('\'', "\"")), ours);
        assert_eq!(parse_mark("<mark instance='x' incarnation='y'/>"), None);
        assert_eq!(parse_mark(""), None);
    }

    #[test]
    fn targets_go_on_after_z() {
        assert_eq!([0, 1, 25, 26, 27].map(target), ["vda", "vdb", "vdz", "vdaa", "vdab"]);
    }
}
