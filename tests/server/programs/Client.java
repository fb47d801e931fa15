// Selenium's client for Java, unchanged, against a server: `java Client SCENARIO SETTINGS`, where SETTINGS is a JSON
// object.  Prints one JSON object with the facts that the test checks.

import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.openqa.selenium.Alert;
import org.openqa.selenium.By;
import org.openqa.selenium.Cookie;
import org.openqa.selenium.Dimension;
import org.openqa.selenium.Keys;
import org.openqa.selenium.MutableCapabilities;
import org.openqa.selenium.OutputType;
import org.openqa.selenium.UsernameAndPassword;
import org.openqa.selenium.WebElement;
import org.openqa.selenium.WindowType;
import org.openqa.selenium.chrome.ChromeOptions;
import org.openqa.selenium.firefox.FirefoxOptions;
import org.openqa.selenium.interactions.Actions;
import org.openqa.selenium.json.Json;
import org.openqa.selenium.print.PrintOptions;
import org.openqa.selenium.remote.HttpCommandExecutor;
import org.openqa.selenium.remote.LocalFileDetector;
import org.openqa.selenium.remote.RemoteWebDriver;
import org.openqa.selenium.remote.http.ClientConfig;
import org.openqa.selenium.support.ui.ExpectedConditions;
import org.openqa.selenium.support.ui.WebDriverWait;

public class Client {
  static final Duration LIMIT = Duration.ofSeconds(60);
  static final String PAGE =
      "data:text/html;charset=utf-8,<!doctype html><title>idioms</title>"
          + "<input id=text><input type=file id=file><div id=host></div>"
          + "<button id=b onclick=\"setTimeout(()=>{let p=document.createElement('p');p.id='late';"
          + "p.textContent='here';document.body.append(p)},50)\">go</button>"
          + "<div id=far style='margin-top:200px'>far</div>"
          + "<a id=a download=\"r%C3%A9sum%C3%A9.txt\" href=\"data:application/octet-stream,first\">a</a>"
          + "<script>document.getElementById('host').attachShadow({mode:'open'}).innerHTML="
          + "'<b class=in>shadow</b>';document.getElementById('far').addEventListener('mouseover',"
          + "()=>document.title='hovered');</script>";

  static final Map<String, Object> facts = new LinkedHashMap<>();
  static Map<String, Object> given;

  interface Part {
    void run() throws Exception;
  }

  // A driver that can also go on with another session's id.
  static class Driver extends RemoteWebDriver {
    Driver(HttpCommandExecutor executor, MutableCapabilities options) {
      super(executor, options);
    }

    void use(String id) {
      setSessionId(id);
    }
  }

  static String text(String key) {
    return (String) given.get(key);
  }

  static MutableCapabilities options() {
    MutableCapabilities options =
        "firefox".equals(text("browser")) ? new FirefoxOptions() : new ChromeOptions();
    options.setCapability("se:downloadsEnabled", true);
    options.setCapability("browserkeeper:label", "java");
    return options;
  }

  static Driver open(ClientConfig config) {
    return new Driver(new HttpCommandExecutor(config), options());
  }

  static ClientConfig at(String address) throws Exception {
    return ClientConfig.defaultConfig().baseUri(new URI(address));
  }

  static Map<String, String> errorOf(Part part) {
    try {
      part.run();
    } catch (Throwable error) {
      return Map.of("name", error.getClass().getSimpleName(), "text", String.valueOf(error.getMessage()));
    }
    return null;
  }

  static String magic(String base64, int from, int to) {
    byte[] content = Base64.getMimeDecoder().decode(base64);
    return new String(content, from, to - from, StandardCharsets.ISO_8859_1);
  }

  static void elements(Driver driver) throws Exception {
    WebDriverWait wait = new WebDriverWait(driver, LIMIT);
    driver.get(PAGE);
    driver.findElement(By.id("b")).click();
    WebElement late = wait.until(ExpectedConditions.presenceOfElementLocated(By.id("late")));
    facts.put("late", List.of(late.getText(), late.isDisplayed()));
    WebElement field = driver.findElement(By.id("text"));
    new Actions(driver).click(field).sendKeys("ab").keyDown(Keys.SHIFT).sendKeys("c").keyUp(Keys.SHIFT)
        .sendKeys("d é").perform();
    facts.put("typed", field.getDomProperty("value"));
    new Actions(driver).moveToElement(driver.findElement(By.id("far"))).perform();
    wait.until(ExpectedConditions.titleIs("hovered"));
    driver.resetInputState();
    facts.put("shadow",
        driver.findElement(By.id("host")).getShadowRoot().findElement(By.cssSelector(".in")).getText());
    facts.put("script", driver.executeScript("return [arguments[0].id, {a: [1, null, 'x']}]", field));
    facts.put("asynchronous", driver.executeAsyncScript("arguments[0](7)"));
    facts.put("pdf", magic(driver.print(new PrintOptions()).getContent(), 0, 4));
    facts.put("png", magic(driver.getScreenshotAs(OutputType.BASE64), 1, 4));
    facts.put("nowhere", errorOf(() -> driver.findElement(By.id("nowhere"))));
    facts.put("stale", errorOf(() -> {
      driver.get(PAGE);
      field.click();
    }));
    facts.put("late_never", errorOf(
        () -> new WebDriverWait(driver, Duration.ofMillis(100)).until(ExpectedConditions.titleIs("never"))));
  }

  static void files(Driver driver) throws Exception {
    driver.setFileDetector(new LocalFileDetector());
    Path local = Path.of(text("folder"), "söme file.txt");
    Files.writeString(local, "uploaded");
    WebElement field = driver.findElement(By.id("file"));
    field.sendKeys(local.toString());
    facts.put("uploaded", driver.executeAsyncScript(
        "arguments[0].files[0].text().then(text => arguments[1]([arguments[0].files[0].name, text]))", field));
    driver.findElement(By.id("a")).click();
    new WebDriverWait(driver, LIMIT).until(it -> driver.getDownloadableFiles().size() == 1);
    facts.put("downloads", driver.getDownloadableFiles());
    Path folder = Path.of(text("folder"), "downloads");
    driver.downloadFile("résumé.txt", folder);
    facts.put("download", Files.readString(folder.resolve("résumé.txt")));
    driver.deleteDownloadableFiles();
    facts.put("downloads_after", driver.getDownloadableFiles());
  }

  static void windows(Driver driver) throws Exception {
    WebDriverWait wait = new WebDriverWait(driver, LIMIT);
    driver.get(text("site") + "framed");
    driver.switchTo().frame("inner");
    facts.put("frame", driver.executeScript("return document.title"));
    driver.switchTo().defaultContent();
    String first = driver.getWindowHandle();
    driver.switchTo().newWindow(WindowType.TAB);
    facts.put("handles", driver.getWindowHandles().size());
    driver.get(text("site") + "about");
    driver.close();
    facts.put("closed", errorOf(driver::getTitle));
    driver.switchTo().window(first);
    driver.executeScript("setTimeout(() => alert('shout'), 0)");
    Alert alert = wait.until(ExpectedConditions.alertIsPresent());
    facts.put("alert", alert.getText());
    alert.accept();
    facts.put("no_alert", errorOf(() -> driver.switchTo().alert()));
    driver.executeScript("setTimeout(() => alert('again'), 0)");
    wait.until(ExpectedConditions.alertIsPresent());
    facts.put("in_the_way", errorOf(driver::getTitle));
    facts.put("title", driver.getTitle());
    driver.manage().addCookie(new Cookie("a b", "1"));
    facts.put("cookies", driver.manage().getCookies().stream().map(Cookie::getName).toList());
    driver.manage().deleteAllCookies();
    facts.put("cookies_after", driver.manage().getCookies());
    driver.manage().timeouts().scriptTimeout(Duration.ofMillis(100));
    facts.put("script_timeout", errorOf(() -> driver.executeAsyncScript("0")));
    driver.manage().timeouts().scriptTimeout(LIMIT);
    facts.put("no_address", errorOf(() -> driver.get("no address")));
    facts.put("raised", errorOf(() -> driver.executeScript("throw new Error('of the page')")));
    driver.manage().window().setSize(new Dimension(700, 600));
    facts.put("width", driver.manage().window().getSize().getWidth());
  }

  static void idioms() throws Exception {
    Driver driver = open(at(text("url")));
    facts.put("server", driver.getCapabilities().getCapability("browserkeeper:server"));
    String id = driver.getSessionId().toString();
    List<String> trouble = new ArrayList<>();
    for (Part part : List.<Part>of(() -> elements(driver), () -> files(driver), () -> windows(driver))) {
      try {
        part.run();
      } catch (Throwable error) {
        trouble.add(error + " " + List.of(error.getStackTrace()));
      }
    }
    facts.put("trouble", trouble);
    driver.executeScript("window.left = 1; localStorage.setItem('left', '1')");
    driver.quit();
    facts.put("after_quit", errorOf(driver::getTitle));
    Driver second = open(at(text("url")));
    String own = second.getSessionId().toString();
    second.use(id);
    facts.put("over", errorOf(second::getTitle));
    second.use(own);
    second.get(text("site") + "framed");
    facts.put("left", second.executeScript("return [window.left, localStorage.length]"));
    second.quit();
  }

  // Each way to give the token, or not to.
  static void token() throws Exception {
    String token = text("token");
    String host = new URI(text("url")).getAuthority().split("@")[1];
    ClientConfig bare = at("http://" + host);
    facts.put("header", errorOf(() -> open(withHeader(bare, "Bearer " + token)).quit()));
    facts.put("address", errorOf(() -> open(at(text("url"))).quit()));
    facts.put("password", errorOf(() -> open(at("http://user:" + token + "@" + host)).quit()));
    facts.put("authenticated",
        errorOf(() -> open(bare.authenticateAs(new UsernameAndPassword("user", token))).quit()));
    facts.put("none", errorOf(() -> open(bare)));
    facts.put("wrong", errorOf(() -> open(at("http://x" + token + "@" + host))));
    facts.put("wrong_header", errorOf(() -> open(withHeader(bare, "Bearer " + "x".repeat(20)))));
    facts.put("refused", errorOf(() -> {
      MutableCapabilities options = options();
      options.setCapability("acme:speed", 3);
      new Driver(new HttpCommandExecutor(withHeader(bare, "Bearer " + token)), options);
    }));
  }

  static ClientConfig withHeader(ClientConfig config, String value) {
    return config.withFilter(next -> request -> next.execute(request.setHeader("Authorization", value)));
  }

  // Holds a session until the program is killed or gets a line: idle, in a command that hangs, or asking.
  static void hold() throws Exception {
    Driver driver = open(at(text("url")));
    System.out.println(new Json().toJson(Map.of("id", driver.getSessionId().toString())).replace("\n", ""));
    if (given.containsKey("hang")) {
      driver.get(text("site") + "never");
    }
    while (System.in.available() == 0) {
      if (given.containsKey("poll")) {
        driver.getTitle();
      }
      Thread.sleep(200);
    }
    facts.put("title", driver.getTitle());
    driver.quit();
  }

  public static void main(String[] words) throws Exception {
    given = new Json().toType(words[1], Json.MAP_TYPE);
    switch (words[0]) {
      case "idioms" -> idioms();
      case "token" -> token();
      case "hold" -> hold();
      default -> throw new IllegalArgumentException(words[0]);
    }
    System.out.println(new Json().toJson(facts).replace("\n", ""));
    System.exit(0);
  }
}
