import type { Report } from "./report.ts";

/** A bench measures Pinion and its references in one run. `isSmoke`: a few seconds, to see that it works. */
export type Bench = (context: { isSmoke: boolean }) => Promise<Pick<Report, "options" | "rows" | "budgets">>;
