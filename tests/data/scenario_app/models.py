"""What the applications of the rule book's examples store."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    id: Mapped[int] = mapped_column(primary_key=True)


class User(Base):
    __tablename__ = "users"
    name: Mapped[str | None] = mapped_column(String(50))
    email: Mapped[str | None] = mapped_column(String(50), unique=True)
    number: Mapped[int | None]
    active: Mapped[bool | None]
    state: Mapped[str | None]
    token: Mapped[str | None]


class Profile(Base):
    __tablename__ = "profiles"
    user_id: Mapped[int]


class Product(Base):
    __tablename__ = "products"
    name: Mapped[str]


class Price(Base):
    __tablename__ = "prices"
    product: Mapped[str]
    amount: Mapped[int]


class Order(Base):
    __tablename__ = "orders"
    number: Mapped[int | None]
    state: Mapped[str | None]
    rate: Mapped[float | None]
    invoiced: Mapped[bool | None]
    archived: Mapped[bool | None]
    old: Mapped[bool | None]
    user_id: Mapped[int | None]


class Line(Base):
    __tablename__ = "lines"
    order_id: Mapped[int | None]
    product_id: Mapped[int | None]
    order: Mapped[int | None]


class Statistics(Base):
    __tablename__ = "statistics"
    order: Mapped[int]


class AuditEntry(Base):
    __tablename__ = "audit"
    action: Mapped[str]


class Event(Base):
    __tablename__ = "events"
    text: Mapped[str | None]
    name: Mapped[str | None]


class Job(Base):
    __tablename__ = "jobs"
    name: Mapped[str]
    state: Mapped[str | None]


class Thread(Base):
    __tablename__ = "threads"
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    title: Mapped[str]


class Message(Base):
    __tablename__ = "messages"
    text: Mapped[str]
    state: Mapped[str | None]
    thread_id: Mapped[str | None]


class Visit(Base):
    __tablename__ = "visits"
    page: Mapped[str | None]
    email: Mapped[str | None]
    account: Mapped[int | None]
    old: Mapped[bool | None]


class Tag(Base):
    __tablename__ = "tags"
    name: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[int | None]


class Audit(Base):
    __tablename__ = "audits"
    text: Mapped[str | None]
    order: Mapped[int | None]


class Failure(Base):
    __tablename__ = "failures"
    reason: Mapped[str | None]
    order: Mapped[int | None]


class Account(Base):
    __tablename__ = "accounts"
    balance: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None]
    visits: Mapped[int] = mapped_column(server_default="0")


class Invoice(Base):
    __tablename__ = "invoices"
    state: Mapped[str]


class Catalog(Base):
    __tablename__ = "catalogs"
    name: Mapped[str | None]
    state: Mapped[str | None]


class Archive(Base):
    __tablename__ = "archives"
    name: Mapped[str]


class Report(Base):
    __tablename__ = "reports"
    state: Mapped[str | None]


class Stock(Base):
    __tablename__ = "stock"
    product_id: Mapped[int]
    amount: Mapped[int]


class LoginToken(Base):
    __tablename__ = "login_tokens"
    expired: Mapped[bool]


class Spawner(Base):
    __tablename__ = "spawners"
    name: Mapped[str]
