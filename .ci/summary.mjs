/** Says of a vitest report (JSON) which files took longest, and on its last line how many tests passed. */
import { readFileSync } from "node:fs";
import { relative } from "node:path";

const slowestShown = 15;

const report = JSON.parse(readFileSync(process.argv[2], "utf8"));
const files = report.testResults
  .map((file) => ({ name: relative(process.cwd(), file.name), ms: file.endTime - file.startTime }))
  .sort((a, b) => b.ms - a.ms);
console.log(`The slowest of ${files.length} files:`);
for (const { name, ms } of files.slice(0, slowestShown)) {
  console.log(`${(ms / 1000).toFixed(1).padStart(7)} s  ${name}`);
}
const { numPassedTests, numFailedTests, numPendingTests } = report;
console.log(`${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped`);
