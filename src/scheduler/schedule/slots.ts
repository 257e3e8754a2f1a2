/** A schedule's slots, in both directions. All moments are in milliseconds. */
export interface Slots {
  /** The first slot strictly after a moment, or undefined if there is none. */
  next(after: number): number | undefined;
  /** The last slot strictly before a moment, or undefined if there is none. */
  previous(before: number): number | undefined;
}
