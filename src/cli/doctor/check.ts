/** Finding of a check. `absent`: nothing to check, which is fine. */
export type Check = {
  name: string;
  verdict: "good" | "doubtful" | "bad" | "absent";
  found: string;
  /** The remedy; for every finding other than good. */
  advice?: string;
};
