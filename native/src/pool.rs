//! The threads that share the work.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);

/// One thread per core, or as many as `RAYON_NUM_THREADS` says.
///
/// A process that was forked starts its own threads: those of its parent did not come along, and
/// waiting for them would take for ever. Call it while attached to the interpreter, so that no
/// fork meets the lock held.
pub fn pool() -> Result<Arc<ThreadPool>, String> {
    let process = std::process::id();
    let mut slot = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((owner, pool)) = slot.as_ref()
        && *owner == process
    {
        return Ok(Arc::clone(pool));
    }
    let pool = ThreadPoolBuilder::new()
        .thread_name(|number| format!("rundiff-{number}"))
        .build()
        .map_err(|error| format!("the threads can't be started ({error}); lower RAYON_NUM_THREADS"))?;
    let pool = Arc::new(pool);
    if let Some((_, inherited)) = slot.replace((process, Arc::clone(&pool))) {
        // Its threads don't exist here; dropping it would wait for them.
        std::mem::forget(inherited);
    }
    Ok(pool)
}
