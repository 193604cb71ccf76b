"""Class names that a page must not take for markup, script or links."""

HOSTILE = ["<script>document.title='broken'</script>", "</script><img src=x onerror=\"document.title='broken'\">",
           '"><b onmouseover=alert(1)>&amp;', "<a href='https://example.org'>x</a> $x_1$ %{x} \u2028", "plain"]
