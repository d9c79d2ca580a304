// Opens reports in Chromium and counts what is wrong with them; see README.md.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const WIDTHS = [360, 768, 1400];
const SCHEMES = ["light", "dark"];
const IMPACTS = ["critical", "serious", "moderate", "minor"];

const pages = process.argv.slice(2).map((argument) => argument.split(/=(.*)/s).slice(0, 2));
if (!pages.length || pages.some(([, file]) => !file)) {
  console.error("usage: node benchmarks/report/check.mjs NAME=PAGE.html...");
  process.exit(2);
}

const tools = mkdtempSync(path.join(tmpdir(), "report-check-"));
try {
  execFileSync("npm", ["install", "--silent", "--no-audit", "--no-fund", "--prefix", tools, "playwright-core", "axe-core"]);
  const require = createRequire(path.join(tools, "node_modules", "x.js"));
  const { chromium } = require("playwright-core");
  const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
  const versions = Object.fromEntries(["playwright-core", "axe-core"].map((name) => [name, require(`${name}/package.json`).version]));
  const browser = await chromium.launchPersistentContext(path.join(tools, "profile"), { executablePath: CHROMIUM, args: QUIET });
  versions.chromium = browser.browser()?.version() ?? "";
  const rows = [];
  for (const [name, file] of pages) {
    for (const width of WIDTHS) {
      for (const scheme of SCHEMES) rows.push(await judged(browser, axe, name, file, width, scheme));
    }
  }
  const printed = [];
  for (const [name, file] of pages) printed.push(await print(browser, name, file));
  await browser.close();
  const scriptless = [];
  const still = await chromium.launchPersistentContext(path.join(tools, "still"), {
    executablePath: CHROMIUM, args: QUIET, javaScriptEnabled: false,
  });
  for (const [name, file] of pages) scriptless.push(await withoutScript(still, name, file));
  await still.close();
  const results = { versions, pages: rows, printed, without_script: scriptless };
  writeFileSync(path.join(HERE, "results.json"), JSON.stringify(results, null, 2) + "\n");
  writeFileSync(path.join(HERE, "results.md"), table(results));
  console.log(table(results));
  const bad = rows.some((row) => row.console_errors || row.requests || row.overflow_px || row.clipped_texts ||
    row.overlapping_texts || row.axe.critical || row.axe.serious);
  process.exitCode = bad ? 1 : 0;
} finally {
  rmSync(tools, { recursive: true, force: true });
}

async function judged(browser, axe, name, file, width, scheme) {
  const page = await browser.newPage();
  await page.setViewportSize({ width, height: 900 });
  await page.emulateMedia({ colorScheme: scheme });
  const url = pathToFileURL(path.resolve(file)).href;
  const errors = [], requests = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) errors.push(message.text()); });
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => { if (request.url() !== url && !request.url().startsWith("data:")) requests.push(request.url()); });
  await page.goto(url);
  const layout = await page.evaluate(measure);
  const keys = await page.evaluate(readByKeys);
  await page.evaluate(axe); // not as a script element: the page's own policy is kept
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const counts = Object.fromEntries(IMPACTS.map((impact) => [impact, found.violations.filter((one) => one.impact === impact).length]));
  for (const one of found.violations) console.error(`${name} ${width} ${scheme}: ${one.impact} ${one.id}: ${one.nodes[0].html.slice(0, 160)}`);
  for (const one of [...errors, ...requests, ...layout.clipped, ...layout.overlapping]) console.error(`${name} ${width} ${scheme}: ${one}`);
  await page.close();
  return {
    page: name, width, scheme, charts: layout.charts, console_errors: errors.length, requests: requests.length,
    overflow_px: layout.overflow, clipped_texts: layout.clipped.length, overlapping_texts: layout.overlapping.length,
    marks_read_by_keys: keys, axe: counts,
  };
}

function measure() {
  const clipped = [], overlapping = [];
  const charts = [...document.querySelectorAll("svg.chart")];
  for (const chart of charts) {
    const frame = chart.getBoundingClientRect();
    const texts = [...chart.querySelectorAll("text")].filter((text) => text.textContent.trim());
    const boxes = texts.map((text) => text.getBoundingClientRect());
    texts.forEach((text, one) => {
      const box = boxes[one];
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) {
        clipped.push(`clipped: ${text.textContent}`);
      }
      for (let other = one + 1; other < texts.length; other += 1) {
        const wide = Math.min(box.right, boxes[other].right) - Math.max(box.left, boxes[other].left);
        const high = Math.min(box.bottom, boxes[other].bottom) - Math.max(box.top, boxes[other].top);
        if (wide > 1 && high > 0.35 * box.height) overlapping.push(`overlap: ${text.textContent} / ${texts[other].textContent}`);
      }
    });
  }
  const overflow = Math.max(0, document.documentElement.scrollWidth - window.innerWidth);
  return { charts: charts.length, clipped, overlapping, overflow };
}

function readByKeys() {
  let read = 0;
  for (const chart of document.querySelectorAll("svg.chart")) {
    const readout = chart.parentElement.querySelector(".readout");
    const before = readout.textContent;
    chart.focus();
    chart.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    if (document.activeElement === chart && readout.textContent !== before) read += 1;
  }
  return read;
}

async function print(browser, name, file) {
  const page = await browser.newPage();
  await page.goto(pathToFileURL(path.resolve(file)).href);
  await page.emulateMedia({ media: "print", colorScheme: "dark" });
  const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const pdf = (await page.pdf({ format: "A4" })).toString("latin1");
  await page.close();
  return { page: name, pages: (pdf.match(/\/Type\s*\/Page\b/g) ?? []).length, background };
}

async function withoutScript(browser, name, file) {
  const page = await browser.newPage();
  await page.goto(pathToFileURL(path.resolve(file)).href);
  const tables = await page.locator("table").count();
  const titled = await page.locator("svg.chart > title").count();
  const charts = await page.locator("svg.chart").count();
  const readouts = await page.locator(".readout:visible").count();
  await page.close();
  return { page: name, tables, charts, titled_charts: titled, empty_readouts: readouts };
}

function table({ versions, pages: rows, printed, without_script: scriptless }) {
  const lines = [
    "# Reports in a browser", "",
    `Chromium ${versions.chromium}, axe-core ${versions["axe-core"]}. Violations by axe: critical / serious / moderate / minor.`, "",
    "| page | width | scheme | console errors | requests | overflow px | clipped texts | overlapping texts | charts read by keys | axe |",
    "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ...rows.map((row) => `| ${row.page} | ${row.width} | ${row.scheme} | ${row.console_errors} | ${row.requests} | ${row.overflow_px} | ` +
      `${row.clipped_texts} | ${row.overlapping_texts} | ${row.marks_read_by_keys} of ${row.charts} | ${IMPACTS.map((impact) => row.axe[impact]).join(" / ")} |`),
    "", "| page | printed pages (A4) | background in print, dark scheme | without script: tables, charts with title |", "| --- | ---: | --- | --- |",
    ...printed.map((one, place) => `| ${one.page} | ${one.pages} | ${one.background} | ${scriptless[place].tables}, ` +
      `${scriptless[place].titled_charts} of ${scriptless[place].charts} |`),
  ];
  return lines.join("\n") + "\n";
}
