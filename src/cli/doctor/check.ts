/** What the doctor found of one thing. `absent`: there is nothing to look at, which is fine. */
export type Check = {
  name: string;
  verdict: "good" | "doubtful" | "bad" | "absent";
  found: string;
  /** What to do; for whatever is not good. */
  advice?: string;
};
