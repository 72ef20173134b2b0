"""The modules whose documentation the demo serves: an explicit list.

Importing a module runs it. So the list is written by hand and leaves out what acts on
import or opens windows (antigravity, this, idlelib, turtledemo, tkinter, test, lib2to3,
anything called `__main__`), what newer Pythons dropped, and what is private. A module that
this interpreter was built without is passed over when the pages are rendered.
"""

from typing import Final

_NAMES = """
    abc argparse array ast asyncio asyncio.coroutines asyncio.events
    asyncio.exceptions asyncio.futures asyncio.locks asyncio.protocols
    asyncio.queues asyncio.runners asyncio.streams asyncio.subprocess
    asyncio.taskgroups asyncio.tasks asyncio.threads asyncio.timeouts
    asyncio.transports atexit base64 bdb binascii bisect builtins bz2 cProfile
    calendar cmath cmd code codecs codeop collections collections.abc colorsys
    compileall concurrent concurrent.futures concurrent.futures.process
    concurrent.futures.thread configparser contextlib contextvars copy copyreg csv
    ctypes curses curses.ascii curses.panel curses.textpad dataclasses datetime dbm
    dbm.dumb decimal difflib dis doctest email email.charset email.contentmanager
    email.errors email.feedparser email.generator email.header email.headerregistry
    email.iterators email.message email.mime email.parser email.policy email.utils
    encodings enum errno faulthandler fcntl filecmp fileinput fnmatch fractions
    ftplib functools gc getopt getpass gettext glob graphlib grp gzip hashlib heapq
    hmac html html.entities html.parser http http.client http.cookiejar http.cookies
    http.server imaplib importlib importlib.abc importlib.machinery
    importlib.metadata importlib.resources importlib.util inspect io ipaddress
    itertools json json.decoder json.encoder json.tool keyword linecache locale
    logging logging.config logging.handlers lzma mailbox marshal math mimetypes mmap
    modulefinder multiprocessing multiprocessing.connection multiprocessing.context
    multiprocessing.managers multiprocessing.pool multiprocessing.process
    multiprocessing.queues multiprocessing.shared_memory
    multiprocessing.sharedctypes multiprocessing.synchronize netrc ntpath numbers
    operator optparse os os.path pathlib pdb pickle pickletools pkgutil platform
    plistlib poplib posixpath pprint profile pstats pty pwd py_compile pyclbr pydoc
    queue quopri random re readline reprlib resource rlcompleter runpy sched secrets
    select selectors shelve shlex shutil signal site smtplib socket socketserver
    sqlite3 ssl stat statistics string stringprep struct subprocess symtable sys
    sysconfig syslog tabnanny tarfile tempfile termios textwrap threading time
    timeit token tokenize tomllib trace traceback tracemalloc tty types typing
    unicodedata unittest unittest.async_case unittest.case unittest.loader
    unittest.mock unittest.result unittest.runner unittest.suite urllib urllib.error
    urllib.parse urllib.request urllib.response urllib.robotparser uuid warnings
    wave weakref webbrowser wsgiref wsgiref.handlers wsgiref.headers
    wsgiref.simple_server wsgiref.util wsgiref.validate xml xml.dom xml.dom.minidom
    xml.dom.pulldom xml.etree xml.etree.ElementInclude xml.etree.ElementPath
    xml.etree.ElementTree xml.parsers xml.parsers.expat xml.sax xml.sax.handler
    xml.sax.saxutils xml.sax.xmlreader xmlrpc xmlrpc.client xmlrpc.server zipapp
    zipfile zipimport zlib zoneinfo
"""

MODULES: Final = tuple(_NAMES.split())
"""Dotted names, sorted; over 250 of them."""
