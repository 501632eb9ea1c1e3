use super::*;
use crate::pci::machine::{Machine, NIC, address};
use crate::pci::sysfs::names_in;

impl Machine {
    fn driver_override(&self) -> Option<String> {
        read_override(&self.sysfs.device(address()).join("driver_override")).unwrap()
    }

    fn reserve(&self, driver: &str) {
        let path = format!("sys/bus/pci/devices/{NIC}/driver_override");
        self.file(&path, &format!("{driver}\n"));
    }

    fn records(&self) -> usize {
        names_in(&self.sysfs.records()).map_or(0, |names| names.len())
    }
}

fn some(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn unbind_restores_what_bind_changed() {
    for former in [None, some("e1000"), some("vfio-pci")] {
        let machine = Machine::new("none0");
        machine.reserve(former.as_deref().unwrap_or("(null)"));
        let bound = machine.sysfs.bind(address(), false).unwrap();
        assert_eq!((bound.from, bound.to), (some("e1000"), some("vfio-pci")));
        assert_eq!(machine.driver_override(), some("vfio-pci"));
        let again = machine.sysfs.bind(address(), false).unwrap();
        assert_eq!(again.from, again.to);

        let unbound = machine.sysfs.unbind(address()).unwrap();
        assert_eq!(
            (unbound.from, unbound.to),
            (some("vfio-pci"), some("e1000"))
        );
        assert_eq!(machine.driver(), some("e1000"));
        assert_eq!(machine.driver_override(), former);
        assert_eq!(machine.records(), 0);
    }
    let machine = Machine::new("none0");
    let again = machine.sysfs.unbind(address()).unwrap();
    assert_eq!(again.from, again.to);
}

#[test]
fn a_function_without_a_driver_has_none_again() {
    let machine = Machine::new("none0");
    machine.set_driver(None);
    machine.sysfs.bind(address(), false).unwrap();
    assert_eq!(machine.driver(), some("vfio-pci"));
    assert_eq!(machine.sysfs.unbind(address()).unwrap().to, None);
    assert_eq!((machine.driver(), machine.driver_override()), (None, None));
}

#[test]
fn the_driver_that_it_had_gets_it_back_and_not_the_likeliest() {
    let machine = Machine::new("none0");
    machine.set_driver(Some("toy"));
    machine.file("vfio_has_ids", "");
    machine.sysfs.bind(address(), false).unwrap();
    assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("toy"));
    assert_eq!(machine.driver_override(), None);
}

#[test]
fn what_somebody_else_bound_goes_to_the_driver_that_the_kernel_finds() {
    let machine = Machine::new("none0");
    machine.sysfs.bind(address(), false).unwrap();
    machine.sysfs.forget(address());
    assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("e1000"));
    assert_eq!(machine.driver_override(), None);
}

#[test]
fn what_vfio_pci_takes_again_by_its_ids_is_not_given_back() {
    let machine = Machine::new("none0");
    machine.set_driver(Some("vfio-pci"));
    machine.file("vfio_has_ids", "");
    let error = machine.sysfs.unbind(address()).unwrap_err();
    assert!(matches!(error, Error::NotGivenBack { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("vfio-pci took it again"), "{text}");
    let remedy = "echo 8086 100e | sudo tee /sys/bus/pci/drivers/vfio-pci/remove_id";
    assert!(text.contains(remedy), "{text}");
    fs::remove_file(machine.root.path().join("vfio_has_ids")).unwrap();
    assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("e1000"));
}

#[test]
fn what_no_driver_takes_is_not_given_back() {
    let machine = Machine::new("none0");
    machine.set_driver(Some("vfio-pci"));
    machine.file("refuse", "e1000");
    let error = machine.sysfs.unbind(address()).unwrap_err().to_string();
    assert!(
        error.contains("no driver that is loaded took it"),
        "{error}"
    );
    assert!(error.contains("sudo modprobe $(cat"), "{error}");
}

#[test]
fn a_driver_override_that_somebody_left_is_tidied() {
    let machine = Machine::new("none0");
    machine.reserve("vfio-pci");
    let unbound = machine.sysfs.unbind(address()).unwrap();
    assert_eq!(
        (machine.driver(), machine.driver_override()),
        (some("e1000"), None)
    );
    assert_eq!(unbound.notes.len(), 1, "{unbound:?}");

    // Nobody has it, and nobody else may.
    machine.reserve("vfio-pci");
    machine.set_driver(None);
    assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("e1000"));
    assert_eq!(machine.driver_override(), None);

    // Ours, of a function that somebody gave to another driver since.
    machine.sysfs.bind(address(), false).unwrap();
    machine.set_driver(Some("toy"));
    assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("toy"));
    assert_eq!((machine.driver_override(), machine.records()), (None, 0));
}

#[test]
fn a_bind_that_fails_is_undone() {
    let machine = Machine::new("none0");
    machine.file("refuse", "vfio-pci");
    let error = machine.sysfs.bind(address(), false).unwrap_err();
    assert!(matches!(error, Error::Rebind { .. }), "{error}");
    assert_eq!(machine.driver(), some("e1000"));
    assert_eq!(machine.driver_override(), None);
    assert_eq!(machine.records(), 0);
}

#[test]
fn a_driver_that_does_not_take_it_back_is_told_and_remembered_through_a_further_bind() {
    let machine = Machine::new("none0");
    machine.reserve("e1000");
    machine.sysfs.bind(address(), false).unwrap();
    machine.file("refuse", "e1000");
    let error = machine.sysfs.unbind(address()).unwrap_err();
    assert!(matches!(error, Error::NotGivenBack { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("e1000 did not take it; it is on no driver"),
        "{text}"
    );
    assert!(text.contains("pinwire unbind 0000:00:03.0"), "{text}");
    assert_eq!(machine.driver_override(), some("e1000"));

    machine.sysfs.bind(address(), false).unwrap();
    // Nor does a bind that fails forget it.
    machine.sysfs.unbind(address()).unwrap_err();
    machine.file("refuse", "vfio-pci");
    machine.sysfs.bind(address(), false).unwrap_err();
    assert_eq!(machine.driver(), None);
    machine.file("refuse", "");
    assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("e1000"));
    assert_eq!(machine.driver_override(), some("e1000"));
    assert_eq!(machine.records(), 0);
}

#[test]
fn what_another_card_at_the_address_had_does_not_count() {
    let machine = Machine::new("none0");
    machine.set_driver(Some("toy"));
    machine.sysfs.bind(address(), false).unwrap();
    machine.file(&format!("sys/bus/pci/devices/{NIC}/device"), "0x10d3\n");
    assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("e1000"));
}

#[test]
fn an_unbind_whose_driver_is_not_loaded_changes_nothing() {
    let machine = Machine::new("none0");
    machine.sysfs.bind(address(), false).unwrap();
    let drivers = machine.root.path().join("sys/bus/pci/drivers");
    fs::rename(drivers.join("e1000"), drivers.join("e1001")).unwrap();
    let error = machine.sysfs.unbind(address()).unwrap_err().to_string();
    assert!(error.contains("modprobe e1000"), "{error}");
    assert_eq!(machine.driver(), some("vfio-pci"));
    assert_eq!(machine.driver_override(), some("vfio-pci"));
    fs::rename(drivers.join("e1001"), drivers.join("e1000")).unwrap();
    assert_eq!(machine.sysfs.unbind(address()).unwrap().to, some("e1000"));
}

#[test]
fn virtual_functions_that_are_not_there_again_are_told() {
    let machine = Machine::new("none0");
    let device = format!("sys/bus/pci/devices/{NIC}");
    machine.link(
        &format!("{device}/virtfn0"),
        "sys/bus/pci/devices/0000:00:03.1",
    );
    machine.file("sys/bus/pci/devices/0000:00:03.1/vendor", "0x8086");
    machine.file("sys/bus/pci/devices/0000:00:03.1/device", "0x10ed");
    machine.file("sys/bus/pci/devices/0000:00:03.1/class", "0x020000");
    machine.file(&format!("{device}/sriov_numvfs"), "1\n");
    let error = machine
        .sysfs
        .bind(address(), false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("its virtual functions go with it: 0000:00:03.1"),
        "{error}"
    );
    let bound = machine.sysfs.bind(address(), true).unwrap();
    assert_eq!(bound.notes, ["its virtual functions are gone: 1"]);
    assert!(machine.sysfs.virtual_functions(address()).is_empty());
    let error = machine.sysfs.unbind(address()).unwrap_err().to_string();
    assert!(error.contains("but not its 1 virtual functions"), "{error}");
    assert_eq!(machine.driver(), some("e1000"));
}

#[test]
fn what_cannot_be_bound_is_left_alone() {
    let machine = Machine::new("none0");
    let class = format!("sys/bus/pci/devices/{NIC}/class");
    machine.file(&class, "0x060400\n");
    let error = machine.sysfs.bind(address(), true).unwrap_err().to_string();
    assert!(error.contains("is a bridge"), "{error}");
    machine.file(&class, "0x020000\n");

    let drivers = machine.root.path().join("sys/bus/pci/drivers");
    fs::remove_dir_all(drivers.join("vfio-pci")).unwrap();
    let error = machine.sysfs.bind(address(), true).unwrap_err().to_string();
    assert!(error.contains("modprobe vfio-pci"), "{error}");

    fs::remove_file(machine.sysfs.device(address()).join("iommu_group")).unwrap();
    let error = machine.sysfs.bind(address(), true).unwrap_err();
    assert!(matches!(error, Error::NoIommu(_)), "{error}");
    assert_eq!(machine.driver(), some("e1000"));
    let nowhere = machine.sysfs.bind("0000:00:1f.0".parse().unwrap(), true);
    assert!(matches!(nowhere, Err(Error::NoSuchDevice(_))));
}

/// As the kernel writes features: a digit each, from bit 0 on.
#[test]
fn a_virtio_device_that_goes_around_the_iommu_is_never_taken() {
    let machine = Machine::new("none0");
    let device = format!("sys/devices/pci0000:00/{NIC}/virtio1");
    machine.link("sys/bus/virtio/devices/virtio1", &device);
    machine.link(
        &format!("{device}/driver"),
        "sys/bus/virtio/drivers/virtio_net",
    );
    machine.file("sys/bus/virtio/drivers/virtio_net/bind", "");
    let features = |access_platform: char| {
        let digits = format!("{}1{access_platform}{}\n", "01".repeat(16), "0".repeat(30));
        machine.file(&format!("{device}/features"), &digits);
    };
    features('0');
    let error = machine.sysfs.bind(address(), true).unwrap_err();
    assert!(matches!(error, Error::AroundIommu(_)), "{error}");
    assert!(error.to_string().contains("iommu_platform=on"), "{error}");
    let function = machine.sysfs.function(address()).unwrap();
    let error = machine.sysfs.check_usable(&function).unwrap_err();
    assert!(matches!(error, Error::AroundIommu(_)), "{error}");
    features('1');
    machine.sysfs.bind(address(), false).unwrap();
}
