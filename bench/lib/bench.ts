import type { Report } from "./report.ts";

type Measured = Pick<Report, "options" | "rows" | "budgets">;

/**
 * A bench measures Pinion and its references in one run. `isSmoke`: a few seconds, as a check that
 * the bench works. `also`: more tables, each a report of its own.
 */
export type Bench = (context: {
  isSmoke: boolean;
}) => Promise<Measured & { also?: Record<string, Measured> }>;
