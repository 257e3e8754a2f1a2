/** The argument with which this command is the small program of a first start (up/machine-report.ts). */
export const reportArgument = "machine-report";
