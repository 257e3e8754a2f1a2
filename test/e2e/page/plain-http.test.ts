/**
 * The page over plain HTTP from another machine, where browsers keep APIs back that localhost has:
 * the clipboard, and `crypto.randomUUID`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { browserPath, enterToken, untilLive, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { noticeSkipped } from "../../support/notice.ts";
import { startTestReplica } from "../../support/server.ts";

/** An address of this machine that is not its loopback. */
const address = Object.values(networkInterfaces())
  .flat()
  .find((each) => each && !each.internal && each.family === "IPv4")?.address;
if (!address) noticeSkipped("the page from another machine", "a network interface beside the loopback");

test("the page uses no API that browsers keep from pages without TLS, except where it is answered", () => {
  const sources = resolve(import.meta.dirname, "../../../web/src");
  const users = readdirSync(sources, { recursive: true, encoding: "utf8" })
    .filter((name) => /\.tsx?$/.test(name))
    .filter((name) => {
      const code = readFileSync(join(sources, name), "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
      return /crypto\.(randomUUID|subtle)|navigator\.(clipboard|serviceWorker|credentials)|Notification\b\(/.test(
        code,
      );
    });
  expect(users).toEqual(["parts/copy.tsx"]);
});

describe.skipIf(!browserPath || !address)("over plain HTTP from another machine", () => {
  const database = useDatabase();
  const browser = useBrowser();

  test("a person signs in, and copies a command", async () => {
    const replica = await startTestReplica(database.url, { PINION_HOST: "0.0.0.0" });
    const url = replica.url.replace(/\/\/[^:]+:/, `//${address}:`);
    const page = await browser.open(url, "#/fleet", {
      // The browser says that it passes over the header without TLS.
      expected: /Cross-Origin-Opener-Policy/,
    });
    await enterToken(page, replica.token);
    await untilLive(page);
    expect(await page.evaluate("isSecureContext")).toBe(false);
    await page.getByRole("button", { name: "Add a device" }).click();
    await page.getByRole("button", { name: "Make a join code" }).click();
    await page
      .getByRole("button", { name: /^Copy / })
      .first()
      .click();
    await page
      .getByRole("button", { name: /^Copy / })
      .getByText("Copied")
      .first()
      .waitFor();
  });
});
