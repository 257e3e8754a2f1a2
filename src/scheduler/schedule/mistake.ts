/** An error in a schedule, explained for its author. */
export class Mistake extends Error {}
