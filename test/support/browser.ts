/**
 * The web page in a real browser: the headless shell of Chromium, or else another installed
 * Chromium, whose windows cost five times the processor time.
 */
import { accessSync, constants, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterEach, beforeAll, expect } from "vitest";

const names = [
  "chromium-headless-shell",
  "chrome-headless-shell",
  "chromium",
  "chromium-browser",
  "google-chrome",
  "google-chrome-stable",
];
/** The time limit of a test's wait for an element, in milliseconds. */
const patienceMs = 15_000;

/** The browser's program; undefined if this machine has none. */
export const browserPath = findBrowser();

if (!browserPath) {
  console.error(
    `NOTICE: the tests of the web page are skipped, for none of ${names.join(", ")} is installed. Debian: apt-get install chromium-headless-shell. Elsewhere: PINION_CHROMIUM=<path>.`,
  );
}

function findBrowser(): string | undefined {
  const given = process.env.PINION_CHROMIUM;
  const found = (process.env.PATH ?? "")
    .split(delimiter)
    .flatMap((dir) => names.map((name) => join(dir, name)));
  return [...(given ? [given] : []), ...found].find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * For a replica: a hand-driven device sends no heartbeats by itself, and a page takes its time on a
 * busy machine.
 */
export const patient = { PINION_HEARTBEAT_TTL_MS: "60000" };

export type PageOptions = {
  width?: number;
  height?: number;
  scheme?: "light" | "dark";
  timeZone?: string;
  /**
   * Console errors that do not fail the test; of a server that is stopped on purpose, for example.
   */
  expected?: RegExp;
};

export type TestBrowser = {
  /** The page of a server, at a place behind "#". */
  open(url: string, place?: string, options?: PageOptions): Promise<Page>;
  /** The same, signed in. */
  signIn(replica: { url: string; token: string }, place?: string, options?: PageOptions): Promise<Page>;
};

let running: Promise<Browser> | undefined;

/** The browser of this worker's test files; ends with the worker. */
async function sharedBrowser(): Promise<Browser> {
  const browser = await running?.catch(() => undefined);
  if (browser?.isConnected()) return browser;
  running = chromium.launch({
    executablePath: browserPath!,
    // Chromium's sandbox does not run as root, and containers have little shared memory.
    args: [...(process.getuid?.() === 0 ? ["--no-sandbox"] : []), "--disable-dev-shm-usage"],
  });
  return running;
}

/**
 * A browser for the tests of a file, with a new context for each page. A test fails if its pages
 * wrote an error to the console, where the browser also reports violations of the content security
 * policy.
 */
export function useBrowser(): TestBrowser {
  let browser: Browser;
  const complaints: string[] = [];

  beforeAll(async () => {
    browser = await sharedBrowser();
  });
  afterEach(async () => {
    for (const context of browser.contexts()) await context.close();
    const heard = complaints.splice(0);
    expect(heard, "what the page's console complained of").toEqual([]);
  });

  async function open(url: string, place = "", options: PageOptions = {}): Promise<Page> {
    const context = await browser.newContext({
      viewport: { width: options.width ?? 1280, height: options.height ?? 800 },
      colorScheme: options.scheme ?? "light",
      // The certificates of the tests are their own.
      ignoreHTTPSErrors: true,
      timezoneId: options.timeZone ?? "Europe/Berlin",
      permissions: ["clipboard-read", "clipboard-write"],
      // An endless animation is drawn sixty times a second, by the processor.
      reducedMotion: "reduce",
    });
    context.setDefaultTimeout(patienceMs);
    const page = await context.newPage();
    const complain = (text: string) => {
      if (!options.expected?.test(text)) complaints.push(text);
    };
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") complain(message.text());
    });
    page.on("pageerror", (error) => complain(error.stack ?? error.message));
    await page.goto(`${url}/${place}`);
    return page;
  }

  return {
    open,
    async signIn(replica, place, options) {
      const page = await open(replica.url, place, options);
      await enterToken(page, replica.token);
      await untilLive(page);
      return page;
    },
  };
}

/** Waits until the event stream is open, so that no later event is missed. */
export async function untilLive(page: Page): Promise<void> {
  await page.locator(".live-state").getByText("live", { exact: true }).waitFor();
}

export async function enterToken(page: Page, token: string): Promise<void> {
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
}

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Rules of axe-core whose result depends on colours. */
const rulesOfColours = ["color-contrast", "link-in-text-block"];

/**
 * The serious and critical findings of axe-core on the current page; with `of: "colours"` of the
 * rules about colours alone, for a page whose other findings are known.
 */
export async function findBarriers(page: Page, options: { of?: "colours" } = {}): Promise<string[]> {
  // Through the debugger, because the page's policy does not apply there. The page keeps it.
  if ((await page.evaluate("typeof axe")) === "undefined") await page.evaluate(axeSource);
  const asked = {
    resultTypes: ["violations"],
    ...(options.of ? { runOnly: { type: "rule", values: rulesOfColours } } : {}),
  };
  return page.evaluate(`axe.run(document, ${JSON.stringify(asked)}).then(({ violations }) => violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => id + ": " + nodes.slice(0, 3).map((node) => node.html.slice(0, 160) + " " + (node.any[0]?.message ?? "")).join(" | ")))`);
}
