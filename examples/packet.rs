//! Sends a packet, and prints the first one that comes in.
fn main() -> pinwire::Result<()> {
    let device: pinwire::DeviceSpec = std::env::args().nth(1).expect("a DEVICE").parse()?;
    let mut nic = device.open(&Default::default(), None)?;
    let mut buf = nic.alloc(60)?; // zeros, in memory that the card reaches
    buf.put(0, &[[0xff; 6], nic.mac().0].concat()); // to everybody, from this card
    buf.put(12, &[0x88, 0xb5]); // the EtherType for experiments
    nic.send_one(buf.into())?;
    let mut came = Vec::new();
    while came.is_empty() || nic.in_flight() > 0 {
        nic.wait(std::time::Duration::from_secs(1))?;
        nic.recv(&mut came, 64)?;
        nic.completed(&mut Vec::new())?; // what has left
    }
    println!("{:02x?}", came[0].frame.to_vec());
    Ok(())
}
