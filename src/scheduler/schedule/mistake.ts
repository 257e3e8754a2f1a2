/** What is wrong with a schedule, in words for whoever wrote it. */
export class Mistake extends Error {}
