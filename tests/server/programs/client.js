// Selenium's client for JavaScript, unchanged, against a server: `node client.js SCENARIO SETTINGS`, where SETTINGS
// is a JSON object.  Prints one JSON object with the facts that the test checks.
"use strict";
const fs = require("fs");
const http = require("http");
const path = require("path");
const { Builder, By, Capabilities, Key, WebDriver, error, until } = require("selenium-webdriver");
const chrome = require("selenium-webdriver/chrome");
const firefox = require("selenium-webdriver/firefox");
const { HttpClient } = require("selenium-webdriver/http");
const { Executor } = require("selenium-webdriver/lib/http");
const remote = require("selenium-webdriver/remote");

const given = JSON.parse(process.argv[3]);
const facts = {};
const LIMIT = 60000;
const PAGE = `data:text/html;charset=utf-8,<!doctype html><title>idioms</title>
<input id=text><input type=file id=file><div id=host></div>
<button id=b onclick="setTimeout(()=>{let p=document.createElement('p');p.id='late';p.textContent='here';
document.body.append(p)},50)">go</button>
<div id=far style='margin-top:200px'>far</div>
<a id=a download="r%C3%A9sum%C3%A9.txt" href="data:application/octet-stream,first">a</a>
<script>document.getElementById('host').attachShadow({mode:'open'}).innerHTML='<b class=in>shadow</b>';
document.getElementById('far').addEventListener('mouseover',()=>document.title='hovered');</script>`.replace(/\n/g, "");

function builder() {
  const made = new Builder().usingServer(given.url).forBrowser(given.browser);
  const options = given.browser === "firefox" ? new firefox.Options() : new chrome.Options();
  options.set("se:downloadsEnabled", true);
  options.set("browserkeeper:label", "javascript");
  return given.browser === "firefox" ? made.setFirefoxOptions(options) : made.setChromeOptions(options);
}

// The name of the error's class and its text.
async function errorOf(promise) {
  try {
    await promise;
  } catch (caught) {
    return { name: caught.name, text: caught.message, known: caught instanceof error.WebDriverError };
  }
  return null;
}

async function elements(driver) {
  await driver.get(PAGE);
  await driver.findElement(By.id("b")).click();
  const late = await driver.wait(until.elementLocated(By.id("late")), LIMIT);
  facts.late = [await late.getText(), await late.isDisplayed()];
  const text = await driver.findElement(By.id("text"));
  const keys = driver.actions().click(text).sendKeys("ab").keyDown(Key.SHIFT).sendKeys("c").keyUp(Key.SHIFT);
  await keys.sendKeys("d é").perform();
  facts.typed = await text.getProperty("value");
  await driver.actions().move({ origin: await driver.findElement(By.id("far")) }).perform();
  await driver.wait(until.titleIs("hovered"), LIMIT);
  await driver.actions().clear();
  const root = await (await driver.findElement(By.id("host"))).getShadowRoot();
  facts.shadow = await (await root.findElement(By.css(".in"))).getText();
  facts.script = await driver.executeScript("return [arguments[0].id, {a: [1, null, 'x']}]", text);
  facts.asynchronous = await driver.executeAsyncScript("arguments[0](7)");
  facts.pdf = Buffer.from(await driver.printPage({}), "base64").toString("latin1").slice(0, 4);
  facts.png = Buffer.from(await driver.takeScreenshot(), "base64").toString("latin1").slice(1, 4);
  facts.nowhere = await errorOf(driver.findElement(By.id("nowhere")));
  facts.stale = await errorOf((async () => { await driver.get(PAGE); await text.click(); })());
  facts.late_never = await errorOf(driver.wait(until.titleIs("never"), 100));
}

async function files(driver) {
  driver.setFileDetector(new remote.FileDetector());
  const local = path.join(given.folder, "söme file.txt");
  fs.writeFileSync(local, "uploaded");
  const field = await driver.findElement(By.id("file"));
  await field.sendKeys(local);
  facts.uploaded = await driver.executeAsyncScript(
    "arguments[0].files[0].text().then(text => arguments[1]([arguments[0].files[0].name, text]))", field);
  await driver.findElement(By.id("a")).click();
  await driver.wait(async () => (await driver.getDownloadableFiles()).length === 1, LIMIT);
  facts.downloads = await driver.getDownloadableFiles();
  const folder = path.join(given.folder, "downloads");
  const file = path.join(folder, "résumé.txt");
  await driver.downloadFile("résumé.txt", folder);
  // The client's promise is fulfilled before the file is there.
  await driver.wait(() => fs.existsSync(file) && fs.readFileSync(file, "utf8") === "first", LIMIT);
  await driver.deleteDownloadableFiles();
  facts.downloads_after = await driver.getDownloadableFiles();
}

async function windows(driver) {
  await driver.get(given.site + "framed");
  await driver.switchTo().frame(await driver.findElement(By.id("inner")));
  facts.frame = await driver.executeScript("return document.title");
  await driver.switchTo().defaultContent();
  const first = await driver.getWindowHandle();
  await driver.switchTo().newWindow("tab");
  facts.handles = (await driver.getAllWindowHandles()).length;
  await driver.get(given.site + "about");
  await driver.close();
  facts.closed = await errorOf(driver.getTitle());
  await driver.switchTo().window(first);
  await driver.executeScript("setTimeout(() => alert('shout'), 0)");
  await driver.wait(until.alertIsPresent(), LIMIT);
  const alert = await driver.switchTo().alert();
  facts.alert = await alert.getText();
  await alert.accept();
  facts.no_alert = await errorOf(driver.switchTo().alert());
  await driver.executeScript("setTimeout(() => alert('again'), 0)");
  await driver.wait(until.alertIsPresent(), LIMIT);
  facts.in_the_way = await errorOf(driver.getTitle());
  facts.title = await driver.getTitle();
  await driver.manage().addCookie({ name: "a b", value: "1" });
  facts.cookies = (await driver.manage().getCookies()).map((one) => one.name);
  await driver.manage().deleteAllCookies();
  facts.cookies_after = await driver.manage().getCookies();
  await driver.manage().setTimeouts({ script: 100 });
  facts.script_timeout = await errorOf(driver.executeAsyncScript("0"));
  await driver.manage().setTimeouts({ script: LIMIT });
  facts.no_address = await errorOf(driver.get("no address"));
  facts.raised = await errorOf(driver.executeScript("throw new Error('of the page')"));
  await driver.manage().window().setRect({ width: 700, height: 600 });
  facts.width = (await driver.manage().window().getRect()).width;
}

const SCENARIOS = {
  async idioms() {
    const driver = await builder().build();
    const capabilities = await driver.getCapabilities();
    facts.server = capabilities.get("browserkeeper:server");
    facts.id = (await driver.getSession()).getId();
    facts.trouble = [];
    for (const part of [elements, files, windows]) {
      await part(driver).catch((caught) => facts.trouble.push(caught.stack));
    }
    await driver.executeScript("window.left = 1; localStorage.setItem('left', '1')");
    await driver.quit();
    facts.after_quit = await errorOf(driver.getTitle());
    // What a program says that has kept the session's id.
    const again = new WebDriver(facts.id, new Executor(new HttpClient(given.url)));
    facts.over = await errorOf(again.getTitle());
    const second = await builder().build();
    await second.get(given.site + "framed");
    facts.left = await second.executeScript("return [window.left, localStorage.length]");
    await second.quit();
  },

  // Each way to give the token, or not to.
  async token() {
    const { host } = new URL(given.url);
    const bare = `http://${host}`;
    const chosen = Capabilities.chrome();
    const withHeader = (value) => {
      const client = new HttpClient(bare);
      const send = client.send.bind(client);
      client.send = (request) => { request.headers.set("Authorization", value); return send(request); };
      return WebDriver.createSession(new Executor(client), chosen);
    };
    facts.header = await errorOf((async () => { await withHeader(`Bearer ${given.token}`).quit(); })());
    facts.address = await errorOf((async () => { await (await builder().build()).quit(); })());
    facts.password = await errorOf((async () => {
      await (await builder().usingServer(`http://user:${given.token}@${host}`).build()).quit();
    })());
    facts.none = await errorOf(builder().usingServer(bare).build());
    facts.wrong = await errorOf(builder().usingServer(`http://x${given.token}@${host}`).build());
    facts.wrong_header = await errorOf((async () => { await withHeader("Bearer " + "x".repeat(20)).getSession(); })());
    facts.refused = await errorOf((async () => {
      await builder().withCapabilities(new Capabilities({ browserName: "chrome", "acme:speed": 3 })).build();
    })());
  },

  // Holds a session, over the unix socket if there is one, until the program is killed or gets a line: idle, in a
  // command that hangs, or asking again and again.
  async hold() {
    let made = builder();
    if (given.socket) {
      made = made.usingServer("http://localhost").usingHttpAgent(new http.Agent({ socketPath: given.socket, keepAlive: true }));
    }
    const driver = await made.build();
    console.log(JSON.stringify({ id: (await driver.getSession()).getId() }));
    if (given.hang) {
      await driver.get(given.site + "never");
    }
    let told = false;
    process.stdin.once("data", () => { told = true; });
    while (!told) {
      if (given.poll) await driver.getTitle();
      await new Promise((go) => setTimeout(go, 200));
    }
    facts.title = await driver.getTitle();
    await driver.quit();
  },
};

SCENARIOS[process.argv[2]]()
  .then(() => { console.log(JSON.stringify(facts)); process.exit(0); })
  .catch((caught) => { console.error(caught); process.exit(1); });
