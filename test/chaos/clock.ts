/**
 * The moment by the machine's clock, in milliseconds since the epoch with fractions. Does not read
 * `Date`, which the rig shifts in some processes, so that all processes and the database write
 * their records by one clock.
 */
export function realNow(): number {
  return performance.timeOrigin + performance.now();
}
