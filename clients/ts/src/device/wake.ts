/**
 * Notices that the machine slept: between two checks the wall clock moved on much further than the check's interval.
 * (On Linux the monotonic clock stands still in suspend; on macOS it may run on, but then the check itself comes late.)
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
