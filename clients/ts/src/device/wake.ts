/**
 * Detects a sleep of the machine: between two checks the wall clock moved further than the interval
 * by more than `jumpMs`. (On Linux the monotonic clock stops in suspend; on macOS the clock may run
 * on, but then the check itself comes late.)
 */
export function watchForWakeUp(options: {
  checkMs: number;
  jumpMs: number;
  onWake: (sleptMs: number) => void;
}): { stop(): void } {
  let last = Date.now();
  const timer = setInterval(() => {
    const now = Date.now();
    const lateMs = now - last - options.checkMs;
    last = now;
    if (lateMs > options.jumpMs) options.onWake(lateMs);
  }, options.checkMs);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}
