/** The documentation in a browser: found by words, read on a phone, in light and in dark. */
import { describe, expect, test } from "vitest";
import { browserPath, findBarriers, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { useReplica } from "../../support/server.ts";

describe.skipIf(!browserPath)("the documentation", () => {
  const replica = useReplica(useDatabase({ per: "file" }));
  const browser = useBrowser();

  test("a reader comes from the page, searches, follows a result and a link, without a token", async () => {
    const { url } = replica();
    const page = await browser.open(url);
    await page.getByRole("link", { name: "Documentation" }).click();
    await page.getByRole("heading", { name: "Documentation", level: 1 }).waitFor();

    // The key is of the page's script.
    await page.waitForLoadState();
    await page.keyboard.press("/");
    await page.keyboard.type("turns conversations");
    const result = page.locator("#found").getByRole("link", { name: "Turns and conversations" }).first();
    await result.click();
    await page.waitForURL("**/docs/concepts#turns-and-conversations");
    expect(await page.locator("#turns-and-conversations").isVisible()).toBe(true);

    await page.getByLabel("Search", { exact: true }).fill("no-such-word-anywhere");
    await page.getByText("No section has all of these words.").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("navigation").locator('a[href$="docs/hooks"]').click();
    await page.waitForURL("**/docs/hooks");
  });

  test("no barrier in light and dark, and no sideways scrolling at 390 pixels", async () => {
    const { url } = replica();
    for (const { scheme, width } of [
      { scheme: "light", width: 390 },
      { scheme: "dark", width: 1280 },
    ] as const) {
      const page = await browser.open(url, "docs", { scheme, width });
      const names = width === 390 ? ["", "/cli", "/configuration", "/performance", "/repository"] : [];
      for (const name of [...names, "/lifecycles"]) {
        await page.goto(`${url}/docs${name}`);
        const excess = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        expect(await page.evaluate(excess), `${name} at ${width}`).toBe(0);
      }
      expect(await findBarriers(page), `${scheme} at ${width}`).toEqual([]);
      await page.getByLabel("Search", { exact: true }).fill("claim");
      await page.locator("#found li").first().waitFor();
      expect(await findBarriers(page), `${scheme} at ${width}, with results`).toEqual([]);
    }
  }, 60_000);
});
