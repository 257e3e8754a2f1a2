import type { Report } from "./report.ts";

/**
 * A bench measures Pinion and its references in one run. `isSmoke`: a few seconds, as a check that
 * the bench works.
 */
export type Bench = (context: { isSmoke: boolean }) => Promise<Pick<Report, "options" | "rows" | "budgets">>;
