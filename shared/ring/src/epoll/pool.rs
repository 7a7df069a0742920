//! A pool of receive buffers, of the same shape as a ring's. A buffer is taken only while bytes
//! are there to fill it, so an idle connection owns none; the buffer that came back last is taken
//! first, since it is the one that the processor still has in its caches. Memory that was never
//! needed is never touched.

use crate::driver::{Group, RxBuf};

pub(super) struct Pool {
    group: Group,
    memory: Vec<u8>,
    buffer_bytes: usize,
    free: Vec<u16>,
    lent: Vec<bool>,
}

impl Pool {
    pub(super) fn new(group: Group, (count, bytes): (u16, u32)) -> Pool {
        assert!(count > 0 && bytes > 0, "a pool has buffers, and a buffer holds something");
        let buffer_bytes = bytes as usize;
        Pool {
            group,
            memory: vec![0; usize::from(count) * buffer_bytes],
            buffer_bytes,
            free: (0..count).rev().collect(),
            lent: vec![false; count.into()],
        }
    }

    /// Lets `fill` put bytes into a free buffer, and lends it if there were any. `None` if no
    /// buffer is free.
    pub(super) fn receive<E>(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Option<Result<RxBuf, E>> {
        let id = self.free.pop()?;
        let start = usize::from(id) * self.buffer_bytes;
        match fill(&mut self.memory[start..start + self.buffer_bytes]) {
            Ok(len) => {
                assert!(len <= self.buffer_bytes, "what was received is in the buffer");
                self.lent[usize::from(id)] = true;
                let len = len as u32;
                Some(Ok(RxBuf { group: self.group, ring: 0, id, offset: 0, len, shared: false }))
            }
            Err(error) => {
                self.free.push(id);
                Some(Err(error))
            }
        }
    }

    pub(super) fn bytes(&self, buf: &RxBuf) -> &[u8] {
        assert!(self.lent[usize::from(buf.id)], "a loan of this pool");
        let start = usize::from(buf.id) * self.buffer_bytes;
        &self.memory[start..start + buf.len as usize]
    }

    pub(super) fn release(&mut self, buf: &RxBuf) {
        let lent = std::mem::take(&mut self.lent[usize::from(buf.id)]);
        assert!(lent, "a buffer is released once");
        self.free.push(buf.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pool_takes_nothing_and_a_buffer_comes_back_first() {
        let mut pool = Pool::new(Group::Small, (2, 8));
        let fill = |byte: u8| {
            move |room: &mut [u8]| -> Result<usize, ()> {
                room[..4].fill(byte);
                Ok(4)
            }
        };
        let one = pool.receive(fill(1)).unwrap().unwrap();
        let two = pool.receive(fill(2)).unwrap().unwrap();
        assert!(pool.receive(fill(3)).is_none(), "both are on loan");
        assert_eq!((pool.bytes(&one), pool.bytes(&two)), (&[1; 4][..], &[2; 4][..]));
        let id = two.id;
        pool.release(&two);
        let again = pool.receive(fill(4)).unwrap().unwrap();
        assert_eq!((again.id, pool.bytes(&again)), (id, &[4; 4][..]));
    }

    #[test]
    fn a_receive_that_fails_keeps_its_buffer_in_the_pool() {
        let mut pool = Pool::new(Group::Small, (1, 8));
        assert_eq!(pool.receive(|_| Err("nothing there")).unwrap().unwrap_err(), "nothing there");
        assert!(pool.receive(|_| Ok::<_, ()>(1)).is_some());
    }
}
