/** Argument for running the report program of a first start (up/machine-report.ts). */
export const reportArgument = "machine-report";
