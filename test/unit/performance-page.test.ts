/** The figures of docs/performance.md equal the measured figures. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readReports, renderPage, renderPlots } from "../../bench/page.ts";
import { root } from "../support/docs.ts";

test("every table and plot of the page is rendered from its report", () => {
  const reports = readReports();
  expect(reports.map(({ bench }) => bench)).toEqual(
    expect.arrayContaining(["lifecycle", "latency", "fleet", "herd", "growth", "storm", "replicas", "costs"]),
  );
  const page = readFileSync(join(root, "docs/performance.md"), "utf8");
  expect(renderPage(page, reports)).toBe(page);
  for (const [name, svg] of renderPlots(reports)) {
    expect(existsSync(join(root, name)), name).toBe(true);
    expect(readFileSync(join(root, name), "utf8")).toBe(svg);
  }
});
